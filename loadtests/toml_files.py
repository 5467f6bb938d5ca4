"""Models of TOML files, with errors that name the file and the field."""

import tomllib
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """A file or a table. `rows`: the model of a file's tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: ClassVar[type[BaseModel]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises `ValueError`."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from None
        except ValidationError as error:
            raise ValueError(f"{path}: {cls.faults(error)}") from None

    @classmethod
    def faults(cls, error: ValidationError) -> str:
        """Each invalid field and what is wrong with it."""
        found = []
        for fault in error.errors():
            place, text = fault["loc"], fault["msg"]
            # Of the file itself, or of a table: its name, its number, the field.
            table = {1: cls, 3: cls.rows}.get(len(place))
            if fault["type"] == "extra_forbidden" and table:
                text = f"unknown field; the fields are {', '.join(table.model_fields)}"
            found.append(f"{'.'.join(map(str, place)) or 'file'}: {text}")
        return "; ".join(found)
