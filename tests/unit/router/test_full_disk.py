"""A full disk ends no process: metrics and limits are kept in memory, and the log says so."""

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import prometheus_client.values
import pytest

from tests.fakes.clock import pass_until
from tests.fakes.router import running_router
from tests.fakes.worker import FakeWorker
from triptych.router.api.app import App
from triptych.router.observe import gauges, shared_files
from triptych.router.observe.metrics import SHARED_FOLDER
from triptych.router.observe.shared_files import FILE_BYTES, reserve_shared_files
from triptych.router.serving.processes import Processes
from triptych.router.settings import RouterSettings

WORKERS = [{"targets": ["127.0.0.1:1"], "labels": {"task": "code"}}]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "posix_fallocate", Mock(side_effect=full))


@pytest.mark.usefixtures("full_disk")
def test_limits_are_kept_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "limits"
    keys = [{"name": "a", "sha256": "0" * 64}]
    App(RouterSettings(workers=WORKERS, api_keys=keys, limits_file=path))  # type: ignore[arg-type]
    assert caplog.text.count("ROUTER_LIMITS_FILE") == 1


def test_metrics_files_are_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    reserve_shared_files()
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert all(path.stat().st_blocks * 512 >= FILE_BYTES for path in files)
    # They hold the names of API keys.
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.usefixtures("full_disk")
def test_metrics_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    monkeypatch.setattr(prometheus_client.values, "ValueClass", None)
    reserve_shared_files()
    assert SHARED_FOLDER not in os.environ
    assert prometheus_client.values.ValueClass is prometheus_client.values.MutexValue
    assert list(tmp_path.iterdir()) == []
    assert [record.name for record in caplog.records] == [shared_files.__name__]


async def test_processes_start_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryDirectory", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    assert await Processes(1, [], command=["sh", "-c", "exit 78"]).run() == os.EX_CONFIG


async def test_gauges_survive_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    reads = 0
    read = gauges.read

    def flaky(*arguments: object) -> object:
        nonlocal reads
        reads += 1
        if reads < 3:
            raise OSError(errno.ENOSPC, "full")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gauges, "read", flaky)
    async with running_router(FakeWorker(port=1), wait=False):
        await pass_until(lambda: reads > 3)
