"""`triptych serve` refuses wrong settings before it starts anything."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from tests.unit.deploy.fakes import Driver
from triptych.deploy.common import machine
from triptych.deploy.common.variants import Models, Step
from triptych.deploy.local import cli
from triptych.deploy.local.cli import main, make_plan, serve
from triptych.deploy.local.supervisor import Spec
from triptych.deploy.settings import DeploySettings
from triptych.workers.shared.strict_settings import SettingsError

SPEC = Spec(name="router", argv=(), env={}, host="127.0.0.1", port=1)


def step(title: str, script: str, *arguments: str) -> Step:
    return Step(title, (sys.executable, "-I", "-S", "-c", script, *arguments))


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DEPLOY_GPUS", "0"), ("ROUTER_PORT", "nonsense"), ("DEPLOY_TYPO", "1"), ("WORKER_DTYPE", "nonsense")],
)
@pytest.mark.parametrize("file", [False, True], ids=["environment", "file"])
def test_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, file: bool
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what the file sets shall not outlive the test
    os.environ["PATH"] = "/nowhere"
    if file:
        Path(".env").write_text(f"{name}={value}\n")
    else:
        os.environ[name] = value
    assert main() == os.EX_CONFIG
    assert name in capsys.readouterr().err


def test_unreadable_env_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"DEPLOY_POOLS=code # \xe9")
    assert main() == os.EX_CONFIG
    assert ".env" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["WORKER_TENSOR_PARALLEL", "WORKER_HOST", "WORKER_MODEL", "ROUTER_PORT"])
def test_empty_setting_is_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(cli, "why_taken", lambda host, port: None)
    monkeypatch.setenv(name, "")
    _, _, router, workers = make_plan()
    assert router.port == 8080
    assert {spec.host for spec in workers} == {"127.0.0.1"}


def test_settings_are_case_insensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "why_taken", lambda host, port: None)
    monkeypatch.setenv("worker_token", "the-operators-own-token")
    assert {spec.token for spec in make_plan()[3]} == {"the-operators-own-token"}
    monkeypatch.setenv("worker_model", "other")
    with pytest.raises(SettingsError, match="WORKER_MODEL"):
        make_plan()


def test_host_that_is_not_here_names_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    # 192.0.2.0/24 is for documentation.
    monkeypatch.setenv("ROUTER_HOST", "192.0.2.250")
    with pytest.raises(SettingsError, match="ROUTER_HOST"):
        make_plan()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_stops_the_making_of_a_checkpoint(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    script = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(3600)"
    steps = (step("first", script, "began"), step("second", "raise SystemExit('not to be run')"))
    serving = asyncio.create_task(serve(DeploySettings(), Models({}, steps), SPEC, []))
    await eventually(Path("began").exists)
    os.kill(os.getpid(), number)
    async with hang_guard():
        assert await serving == 0
    assert "second" not in capsys.readouterr().out


async def test_failed_checkpoint_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (step("first", "raise SystemExit(3)"),)
    assert await serve(DeploySettings(), Models({}, steps), SPEC, []) == 1
    said = capsys.readouterr().out
    assert all(part in said for part in ("exit code 3", "DEPLOY_MODEL", "DEPLOY_STATE"))


GPU = """
case "$*" in
-L) echo "GPU 0: NVIDIA Something (UUID: GPU-0)" ;;
*) echo "0, GPU-0, 24576" ;;
esac
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 'Failed to initialize NVML'; exit 18", "Failed to initialize NVML"), (GPU, "a GPU of 24 GiB")],
)
def test_driver_is_asked(monkeypatch: pytest.MonkeyPatch, driver: Driver, script: str, said: str) -> None:
    driver(script)
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda _: "0.32.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SettingsError, match=said):
        make_plan()


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SettingsError, match=r"pip install 'triptych\[gpu\]' or 'triptych\[cpu\]'"):
        make_plan()
