"""The command `triptych`: what its commands import, and how it refuses wrong arguments."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.shell_completion import ShellComplete

from tests.exit_status import exit_status
from tests.fakes.hang_guard import GUARD_SECONDS
from triptych import __main__ as command
from triptych.command_line import Lazy, load
from triptych.deploy.settings import DeploySettings
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings

SETTINGS = {"serve": DeploySettings, "router": RouterSettings, "worker": WorkerSettings}
PASSED_ON = {"loadtest": "loadtests.__main__:main", "bench": "loadtests.bench.__main__:main"}


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below `group`, with its name in words."""
    for name, found in group.commands.items():
        real = load(found.target) if isinstance(found, Lazy) else found
        yield (*names, name), real
        if isinstance(real, click.Group):
            yield from commands(real, *names, name)


ALL = dict(commands(command.cli))


MAIN = "from triptych.__main__ import main; main()"


def run(*arguments: str, without: tuple[str, ...] = (), code: str = MAIN) -> subprocess.CompletedProcess[str]:
    """`triptych` in a process of its own, where the packages `without` are not installed."""
    blocked = f"import sys; sys.modules |= dict.fromkeys({without!r})\n"
    argv = [sys.executable, "-c", blocked + code, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)


HELP = """
from triptych.__main__ import cli
for name in {}:
    cli.main([*name, '--help'], prog_name='triptych', standalone_mode=False)
"""


def test_help_has_an_example_and_needs_no_engine() -> None:
    names = [(), *(name for name in ALL if name[0] not in PASSED_ON)]
    done = run(code=HELP.format(names), without=("torch", "vllm", "ray", "locust", "transformers"))
    assert done.returncode == 0, done.stderr
    for name, page in zip(names, done.stdout.split("Usage: triptych")[1:], strict=True):
        assert f"    {' '.join(['triptych', *name])}" in page


def test_list_of_commands_needs_only_click() -> None:
    done = run("--help", without=("httpx", "numpy", "pydantic", "msgspec", "tqdm"))
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in command.cli.commands)


@pytest.mark.parametrize(
    ("arguments", "package", "extras"),
    [
        ("router", "aiohttp", "'triptych[router]'"),
        ("worker --model x", "tokenizers", "'triptych[cpu]' or pip install 'triptych[gpu]'"),
        ("merge in out", "safetensors", "'triptych[workers]'"),
        ("ray plan", "ray", "'triptych[ray]'"),
        ("loadtest scenarios", "msgspec", "'triptych[loadtest]'"),
    ],
)
def test_missing_extra_is_named(arguments: str, package: str, extras: str) -> None:
    done = run(*arguments.split(), without=(package,))
    assert done.returncode == 2
    assert package in done.stderr
    assert f"pip install {extras}" in done.stderr


def test_a_missing_module_of_ours_is_a_bug() -> None:
    done = run("keys", "alice", without=("triptych.router.errors",))
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_but_secrets_is_an_option(name: str) -> None:
    settings = SETTINGS[name]
    options = {parameter.opts[-1] for parameter in ALL[name,].get_params(click.Context(ALL[name,]))}
    secrets = {name for name, field in settings.model_fields.items() if "token" in name and name != "tokens"}
    secrets -= {"batch_tokens", "queue_tokens", "max_tokens"}
    expected = {f"--{field.replace('_', '-')}" for field in settings.model_fields if field not in secrets}
    assert options == expected | {"--help"}


def test_options_set_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"ROUTER_HOST": "::1", "ROUTER_PORT": "1"})
    seen: dict[str, str] = {}
    monkeypatch.setattr("triptych.router.__main__.main", lambda: seen.update(os.environ))
    assert exit_status(command.cli, "router", "--port", "9", "--max-items=5") == 0
    assert seen == {"ROUTER_HOST": "::1", "ROUTER_PORT": "9", "ROUTER_MAX_ITEMS": "5"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("serv", "serve"),
        ("router --prot 1", "--port"),
        ("embed in out --task code", "code.query"),
        ("merge in out --pool nonsense", "text-matching"),
        ("verify --full", "FOLDER"),
        ("verify folder --url http://x", "--url"),
        ("ray scale code", "POOL=NUMBER"),
        ("ray plan --config missing.yaml", "missing.yaml"),
        ("ray up --local --address x", "--address"),
    ],
)
def test_wrong_arguments_are_named(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(command.cli, *arguments.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("router --port nonsense", "ROUTER_PORT"),
        ("serve --pools nonsense", "DEPLOY_POOLS"),
        ("worker --model x --dtype nonsense", "WORKER_DTYPE"),
    ],
)
def test_wrong_settings_are_named(
    arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Options set variables.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert exit_status(command.cli, *arguments.split()) == os.EX_CONFIG
    assert said in capsys.readouterr().err


def complete(*words: str) -> set[str]:
    shell = ShellComplete(command.cli, {}, "triptych", "_TRIPTYCH_COMPLETE")
    return {item.value for item in shell.get_completions(list(words[:-1]), words[-1])}


def test_shell_completion() -> None:
    assert complete("") == set(command.cli.commands)
    assert complete("router", "--po") == {"--port"}
    assert complete("ray", "st") == {"status"}
    assert complete("merge", "--dtype", "f") == {"float32"}


@pytest.mark.parametrize("name", PASSED_ON)
def test_arguments_are_passed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(command, "load", lambda target: lambda words: seen.append((target, [*words])))
    assert exit_status(command.cli, name, "run", "--help", "--rate", "5", "x") == 0
    assert seen == [(PASSED_ON[name], ["run", "--help", "--rate", "5", "x"])]


def test_keys_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(command.cli, "keys", "alice", "--tokens-per-minute", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"].startswith("triptych_")
    assert found["entry"]["tokens_per_minute"] == 5


def test_package_imports_the_client_on_use() -> None:
    program = (
        "import sys, triptych\n"
        "assert not {'httpx', 'numpy', 'triptych.router'} & set(sys.modules)\n"
        "from triptych import AsyncClient, Client, Image\n"
        "try:\n    triptych.Nothing\nexcept AttributeError as error:\n    assert 'Nothing' in str(error)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=GUARD_SECONDS)
