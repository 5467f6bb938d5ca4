"""Building blocks of the command line: commands imported when they run, and options made from settings."""

import os
import sys
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from triptych.workers.shared.strict_settings import StrictSettings


def load(target: str) -> Any:
    """The object that `module:attribute` names, inside this package."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(f"triptych.{module}"), attribute)


class Lazy(click.Command):
    """Stands for a command in lists of commands; `Commands` imports the command itself to run it."""

    def __init__(self, target: str, about: str) -> None:
        super().__init__(None, short_help=about)
        self.target = target


class Commands(click.Group):
    """A group that lists its commands in order, and loads only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(command.target) if isinstance(command, Lazy) else command, rest


class SettingsCommand(click.Command):
    """A command that is configured by a settings class: each field is an option.

    An option sets its variable in the environment, which is where the settings are read, also by child
    processes. Secrets have no option, because every user of the machine can see a command's arguments.
    """

    def __init__(self, settings: str, main: str, **attributes: Any) -> None:
        """`settings` and `main` as in `load`; `main` returns the exit status."""
        super().__init__(None, callback=self._run, **attributes)
        self._settings, self._main = settings, main

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self._options, *super().get_params(ctx)]

    @cached_property
    def _options(self) -> list[click.Option]:
        settings: type[StrictSettings] = load(self._settings)
        prefix = settings.model_config["env_prefix"]
        return [
            _option(f"{prefix}{name}".upper(), name, field)
            for name, field in settings.model_fields.items()
            if "SecretStr" not in repr(field.annotation)
        ]

    def _run(self, **given: str | None) -> None:
        os.environ |= {name: value for name, value in given.items() if value is not None}
        sys.exit(load(self._main)())


def _option(variable: str, name: str, field: "FieldInfo") -> click.Option:
    default = str(field.default) if isinstance(field.default, str | int | float) else False
    return click.Option(
        [variable, f"--{name.replace('_', '-')}"],
        metavar="VALUE",
        help=field.description,
        show_default=default,
        envvar=variable,
        show_envvar=True,
    )
