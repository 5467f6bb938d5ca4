"""Writes `.env.example` from the settings classes: `python -m deploy.env_example > .env.example`."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, NoDecode

from triptych.deploy.settings import DeploySettings
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

# Settings that a deployment sets itself are listed too, for starting a worker by hand.
CLASSES: tuple[type[BaseSettings], ...] = (DeploySettings, RouterSettings, WorkerSettings)
HEADER = """\
Copy to `.env` and take the # from what you change. Real environment variables come first.
Written by `python -m deploy.env_example`, from the settings classes.
"""


def render() -> str:
    parts = [_comment(HEADER)]
    for settings in CLASSES:
        parts.append(_comment((settings.__doc__ or "").splitlines()[0], "## "))
        prefix = settings.model_config["env_prefix"]
        for name, field in settings.model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            said = _comment(f"{field.description}" + (" Required." if field.is_required() else ""))
            parts.append(f"{said}#{prefix}{name.upper()}={_text(default, NoDecode in field.metadata)}\n")
    return "\n".join(parts)


def _comment(text: str, start: str = "# ") -> str:
    lines = [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, 100)]
    return "".join(f"{start}{line}\n" for line in lines)


def _text(value: Any, plain_lists: bool) -> str:
    """A default in the format of environment variables: `a=1,b=2` or `a,b` for `plain_lists`, else JSON."""
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, str | Path):
        return str(value)
    if plain_lists:
        return ",".join(f"{key}={value[key]}" if isinstance(value, Mapping) else key for key in value)
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, default=str)


if __name__ == "__main__":
    print(render(), end="")
