"""What the settings of every process have in common: frozen, and nothing misspelt is passed over."""

import os
import re
from typing import Annotated, Any, TypeVar

import pydantic_settings
from pydantic import AfterValidator, SecretStr, ValidationError, model_validator
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


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]{16,}", token.get_secret_value()):
        raise ValueError("a token has at least 16 characters, ASCII and no spaces")
    return token


Token = Annotated[SecretStr, AfterValidator(_fit_for_a_header)]
"""A secret that goes over the wire as `Authorization: Bearer TOKEN`."""


class SettingsError(ValueError):
    """Settings that have to change before a process can start: one line for each, with its variable."""


Settings = TypeVar("Settings", bound=StrictSettings)


def read_settings(settings: type[Settings], **given: Any) -> Settings:
    """The settings of a process from its environment; `given` come first. Raises `SettingsError`."""
    try:
        return settings(**given)
    except ValidationError as error:
        prefix = settings.model_config["env_prefix"]
        # A fault of several settings together names them itself.
        lines = [
            (f"{prefix}{str(fault['loc'][0]).upper()}: " if fault["loc"] else "")
            + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
    except pydantic_settings.SettingsError as error:
        raise SettingsError(f"{error}; write it as JSON") from None
