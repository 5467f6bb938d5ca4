"""Base of the settings of every process: frozen, and unknown names are errors."""

import os
import re
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import pydantic_settings
from pydantic import AfterValidator, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict


class StrictSettings(BaseSettings):
    """Settings from environment variables with the prefix in the subclass's `model_config`.

    Raises `ValidationError` for unknown keys, also for environment variables with the prefix. Otherwise a
    misspelled setting would silently have no effect.
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
            close = [
                f"{prefix}{near.upper()}"
                for name in strays
                for near in get_close_matches(name[len(prefix) :].lower(), cls.model_fields, 1)
            ]
            meant = f"did you mean {', '.join(close)}? " if close else ""
            raise ValueError(
                f"no such setting: {', '.join(strays)}; {meant}There are {', '.join(sorted(known))}"
            )
        return data


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]{16,}", token.get_secret_value()):
        raise ValueError("a token needs at least 16 characters, ASCII without spaces")
    return token


Token = Annotated[SecretStr, AfterValidator(_fit_for_a_header)]
"""A secret, sent as `Authorization: Bearer TOKEN`."""


class SettingsError(ValueError):
    """Invalid settings: one line for each, with its variable."""


Settings = TypeVar("Settings", bound=StrictSettings)


def read_settings(settings: type[Settings], **given: Any) -> Settings:
    """Read settings from the environment; `given` values win. Raises `SettingsError`."""
    prefix = settings.model_config["env_prefix"]
    try:
        return settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(prefix, fault) for fault in error.errors())) from None
    except pydantic_settings.SettingsError as error:
        # It names the field in quotes.
        name = str(error).split('"')[1]
        raise SettingsError(f"{prefix}{name}".upper() + ": this is not JSON") from None


def _line(prefix: str, fault: ErrorDetails) -> str:
    """One error; without a place, its message names the setting itself."""
    place, message = [*map(str, fault["loc"])], fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        # An unexpected name may be a secret in the wrong place.
        place.pop()
    if not place:
        return message
    place[0] = f"{prefix}{place[0]}".upper()
    return f"{' -> '.join(place)}: {message}"
