"""A killed merge leaves no folder that looks complete, and the next merge cleans up."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.unit.checkpoints.files import UPSTREAM
from triptych.workers.checkpoints.folders import locked, whole_folder
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.variant import identify, read_variant

# Reports and waits to be killed.
STOP = "import sys, threading; print('here', flush=True); threading.Event().wait()"
PATCHES = {
    "in the middle of a shard": "from triptych.workers.checkpoints import merge\n"
    "def stop(*_):\n    yield bytes(1 << 20); {stop}\n"
    "merge._shard = stop",
    "before the rename": "import os\ndef stop(handle): {stop}\nos.fsync = stop",
}


@contextlib.contextmanager
def stopped_merge(out: Path, where: str):
    code = (
        PATCHES[where].format(stop=STOP)
        + "\nfrom triptych.workers.checkpoints.__main__ import cli\n"
        + f"cli(['merge', {str(UPSTREAM)!r}, {str(out)!r}, '--pool', 'code', '--force'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"here\n", process.communicate()[1].decode()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("where", PATCHES)
def test_merge_recovers_from_a_kill(run, tmp_path, where):
    with stopped_merge(tmp_path, where) as process:
        process.kill()
    [left] = tmp_path.iterdir()
    assert any(path.stat().st_size for path in left.iterdir())
    assert (left / "variant.json").exists() == (where == "before the rename")
    assert identify(left).kind == "incomplete"
    with pytest.raises(CheckpointError, match="unfinished merge"):
        read_variant(left)
    assert run("verify", left)[0] == 1
    assert run("merge", UPSTREAM, tmp_path, "--pool", "code")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["code"]
    read_variant(tmp_path / "code")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", PATCHES)
def test_stopped_merge_leaves_nothing(tmp_path, where, number):
    with stopped_merge(tmp_path, where) as process:
        process.send_signal(number)
        process.wait(GUARD_SECONDS)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", PATCHES)
def test_killed_replacement_keeps_the_old(run, merged, tmp_path, where):
    shutil.copytree(merged / "code", tmp_path / "code")
    old = read_variant(tmp_path / "code")
    with stopped_merge(tmp_path, where):
        pass
    assert read_variant(tmp_path / "code") == old
    assert '"digest_matches": true' in run("verify", tmp_path / "code", "--full", "--json")[1]


def second_merge(out: Path) -> subprocess.Popen:
    """A merge that waits for another."""
    command = [sys.executable, "-m", "triptych.workers.checkpoints", "merge", str(UPSTREAM), str(out)]
    options = ["--pool", "code", "--dtype", "float32"]
    second = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waits_for_a_lock(second)
    return second


def test_merge_keeps_what_another_wrote_meanwhile(merged, tmp_path):
    with locked(tmp_path):
        second = second_merge(tmp_path)
        shutil.copytree(merged / "code", tmp_path / "code")
    out, error = second.communicate(timeout=GUARD_SECONDS)
    assert second.returncode == 0, error
    assert "nothing to do" in out


def test_second_merge_waits(run, tmp_path):
    with stopped_merge(tmp_path, "before the rename"):
        second = second_merge(tmp_path)
        assert [path.name.startswith(".code.partial-") for path in tmp_path.iterdir()] == [True]
    _, error = second.communicate(timeout=GUARD_SECONDS)
    assert second.returncode == 0, error
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_leftovers_are_removed_first(tmp_path):
    (tmp_path / ".code.partial-x").mkdir()
    (tmp_path / ".retrieval.partial-x").mkdir()
    with whole_folder(tmp_path / "code") as partial:
        assert sorted(tmp_path.iterdir()) == sorted([partial, tmp_path / ".retrieval.partial-x"])


def test_linked_folder_is_replaced(tmp_path):
    real, link = tmp_path / "disk" / "code", tmp_path / "code"
    real.mkdir(parents=True)
    link.symlink_to(real)
    with whole_folder(link) as partial:
        (partial / "new").touch()
    assert link.is_symlink()
    assert [path.name for path in real.iterdir()] == ["new"]


def waits_for_a_lock(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + GUARD_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        if any(lock[1] == "->" and int(lock[5]) == process.pid for lock in locks):
            return
        time.sleep(0.01)
    raise AssertionError("the second merge never waited")
