"""A worker as a process: what it refuses to start on, how it ends, and what it leaves behind."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.engine_workers import Worker
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.integration.engine_pause import engine_pid
from tests.processes import descendants, pidfds_of, wait_gone
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.shared.contract import (
    ENCODE_PATH,
    LIVE_PATH,
    READY_PATH,
    EncodeRequest,
    FrameReader,
    Item,
    Text,
    Vector,
    encode_request,
)

# In so few items a step that the engine is still at work when the first vectors come.
MANY = 1000


def test_a_variant_of_another_task_is_refused(variants: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "log", model=variants / "code", task="retrieval")
    assert worker.wait() == os.EX_CONFIG
    assert "was merged for code, WORKER_TASK says retrieval" in worker.tail()


def test_a_folder_that_does_not_say_its_task_needs_the_setting(variants: Path, tmp_path: Path) -> None:
    folder = stock_copy(variants / "code", tmp_path / "official")
    worker = Worker(tmp_path / "log", model=folder)
    assert worker.wait() == os.EX_CONFIG
    assert "WORKER_TASK" in worker.tail()


def test_a_folder_that_cannot_be_served_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    worker = Worker(tmp_path / "log", model=tmp_path / "empty", task="code")
    assert worker.wait() == os.EX_CONFIG
    assert "is not a checkpoint" in worker.tail()


def test_a_wrong_setting_is_named(variants: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "log", model=variants / "code", batch_tokens="many")
    assert worker.wait() == os.EX_CONFIG
    assert "WORKER_BATCH_TOKENS" in worker.tail()


def test_an_unknown_setting_is_refused(variants: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "log", model=variants / "code", batch_token="512")
    assert worker.wait() == os.EX_CONFIG
    assert "WORKER_BATCH_TOKEN" in worker.tail()


@pytest.mark.ends_worker
def test_no_engine_outlives_a_worker_that_is_killed(pools: dict[str, Worker]) -> None:
    worker = pools["retrieval"]
    below = pidfds_of(descendants(worker.pid))
    assert len(below) >= 2, "the engine runs in processes of its own"
    os.kill(worker.pid, signal.SIGKILL)
    assert wait_gone(below)
    worker.wait()


@pytest.mark.ends_worker
def test_an_engine_that_dies_ends_its_replies_and_its_worker(pools: dict[str, Worker]) -> None:
    worker = pools["code"]
    body = encode_request(EncodeRequest([Item(Text(f"text {number}", "query")) for number in range(MANY)]))
    with httpx.stream("POST", worker.url + ENCODE_PATH, content=body, timeout=GUARD_SECONDS) as reply:
        chunks = reply.iter_raw()
        received = [next(chunks)]
        os.kill(engine_pid(worker), signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            received += chunks
    frames = list(FrameReader().feed(b"".join(received)))
    assert 0 < len(frames) < MANY
    assert all(isinstance(frame, Vector) for frame in frames)
    assert worker.wait() == 1
    assert "the engine has died; ending this worker" in worker.log.read_text()


@pytest.mark.ends_worker
def test_a_worker_at_work_is_live_and_finishes_on_sigterm_what_it_has_accepted(
    pools: dict[str, Worker],
) -> None:
    worker = pools["text-matching"]
    items = [Item(Text(f"{number} " + "a long way to go " * 50, "query")) for number in range(40)]
    body = encode_request(EncodeRequest(items))
    with httpx.stream("POST", worker.url + ENCODE_PATH, content=body, timeout=GUARD_SECONDS) as reply:
        chunks = reply.iter_raw()
        received = [next(chunks)]
        assert httpx.get(worker.url + LIVE_PATH).status_code == 200
        os.kill(worker.pid, signal.SIGTERM)
        received += chunks
    frames = list(FrameReader().feed(b"".join(received)))
    assert len(frames) == len(items)
    assert all(isinstance(frame, Vector) for frame in frames)
    assert worker.wait() == 0


@pytest.mark.ends_worker
def test_an_engine_that_hangs_ends_its_worker_and_goes_with_it(official: Worker) -> None:
    below = pidfds_of(descendants(official.pid))
    os.kill(engine_pid(official), signal.SIGSTOP)
    assert httpx.get(official.url + READY_PATH).status_code == 200, "without work it lacks nothing"
    body = encode_request(EncodeRequest([Item(Text("a text", "query"))]))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(official.url + ENCODE_PATH, content=body, timeout=GUARD_SECONDS)
    assert official.wait() == 1
    assert wait_gone(below)
    assert "makes no step for" in official.log.read_text()
