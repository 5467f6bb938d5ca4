"""Reads TOML files into models, with errors that name the file and the field."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], rows: type[BaseModel]) -> Model:
    """The file as a `model`, whose tables are `rows`. Raises `ValueError`."""
    try:
        return model.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {faults(error, model, rows)}") from None


def faults(error: ValidationError, model: type[BaseModel], rows: type[BaseModel]) -> str:
    """Each invalid field and what is wrong with it."""
    found = []
    for fault in error.errors():
        place, text = fault["loc"], fault["msg"]
        # Of the file itself, or of a table: its name, its number, the field.
        table = {1: model, 3: rows}.get(len(place))
        if fault["type"] == "extra_forbidden" and table:
            text = f"unknown field; the fields are {', '.join(table.model_fields)}"
        found.append(f"{'.'.join(map(str, place)) or 'file'}: {text}")
    return "; ".join(found)
