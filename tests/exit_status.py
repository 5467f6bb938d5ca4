"""Runs a command of the command line in this process."""

import click
import pytest


def exit_status(command: click.Command, *arguments: object) -> object:
    """The status that `command` exits with."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments], prog_name="triptych")
    return ended.value.code or 0
