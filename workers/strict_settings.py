"""What the settings of every process have in common: frozen, and nothing misspelt is passed over."""

import os
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StrictSettings(BaseSettings):
    """Settings from the environment, with the prefix that a subclass gives in its `model_config`.

    Raises `ValidationError` for an unknown key, also for an environment variable that has the prefix but
    is no setting: a misspelt one would otherwise have no effect and nobody would know.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="forbid", protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _no_strays(cls, data: Any) -> Any:
        prefix = cls.model_config["env_prefix"]
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        ours = {name for name in os.environ if name.upper().startswith(prefix)}
        if strays := sorted(name for name in ours if name.upper() not in known):
            raise ValueError(f"no such setting: {', '.join(strays)}; there are {', '.join(sorted(known))}")
        return data


def explain(error: ValidationError, settings: type[StrictSettings]) -> str:
    """One line for each fault, with the variable it lies in; faults of several name theirs themselves."""
    prefix = settings.model_config["env_prefix"]
    lines = []
    for fault in error.errors():
        name = f"{prefix}{str(fault['loc'][0]).upper()}: " if fault["loc"] else ""
        lines.append(name + fault["msg"].removeprefix("Value error, "))
    return "\n".join(lines)
