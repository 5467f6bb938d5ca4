"""A worker as a process: what it refuses to start on, how it ends, and what it leaves behind."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.cross_encoders import write_bert
from tests.engine_workers import Worker
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.integration.conftest import OFFICIAL, CrossEncoders
from tests.integration.engine_pause import engine_pid
from tests.metrics import parse, value
from tests.processes import descendants, wait_gone
from triptych.workers.shared import contract
from triptych.workers.shared.contract import EncodeRequest, FrameReader, Item, Text, Vector

# In so few items a step that the engine is still at work when the first vectors come.
MANY = 1000


def test_wrong_model_is_refused(variants: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "log", model=variants / "code", task="retrieval")
    assert worker.wait() == os.EX_CONFIG
    assert "was merged for code, WORKER_TASK says retrieval" in worker.tail()


def test_memory_includes_the_engine(pools: dict[str, Worker]) -> None:
    page = parse(httpx.get(pools["retrieval"].url + contract.METRICS_PATH).text)
    own = value(page, "process_resident_memory_bytes")
    assert value(page, "triptych_worker_resident_memory_bytes") > 1.5 * own


@pytest.mark.ends_worker
def test_killed_worker_leaves_no_engine(pools: dict[str, Worker]) -> None:
    worker = pools["retrieval"]
    below = descendants(worker.pid)
    assert len(below) >= 2, "the engine runs in processes of its own"
    os.kill(worker.pid, signal.SIGKILL)
    assert wait_gone(below)
    worker.wait()


@pytest.mark.ends_worker
def test_dead_engine_ends_its_worker(pools: dict[str, Worker]) -> None:
    worker = pools["code"]
    body = contract.encode_request(
        EncodeRequest([Item(Text(f"text {number}", "query")) for number in range(MANY)])
    )
    with httpx.stream(
        "POST", worker.url + contract.ENCODE_PATH, content=body, timeout=GUARD_SECONDS
    ) as reply:
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
def test_sigterm_finishes_accepted_work(cross_encoders: CrossEncoders) -> None:
    worker, _ = cross_encoders[write_bert]
    items = [Item(Text(f"{number} " + "a long way " * 50, "passage"), against=0) for number in range(40)]
    body = contract.encode_request(EncodeRequest(items, queries=[Text("a query", "query")]))
    with httpx.stream(
        "POST", worker.url + contract.ENCODE_PATH, content=body, timeout=GUARD_SECONDS
    ) as reply:
        chunks = reply.iter_raw()
        received = [next(chunks)]
        assert httpx.get(worker.url + contract.LIVE_PATH).status_code == 200
        os.kill(worker.pid, signal.SIGTERM)
        received += chunks
    frames = list(FrameReader().feed(b"".join(received)))
    assert len(frames) == len(items)
    assert all(isinstance(frame, Vector) for frame in frames)
    assert worker.wait() == 0
    assert "ERROR" not in worker.log.read_text()


@pytest.mark.ends_worker
def test_hanging_engine_ends_its_worker(pools: dict[str, Worker]) -> None:
    worker = pools[OFFICIAL]
    below = descendants(worker.pid)
    os.kill(engine_pid(worker), signal.SIGSTOP)
    assert httpx.get(worker.url + contract.READY_PATH).status_code == 200, "without work it lacks nothing"
    body = contract.encode_request(EncodeRequest([Item(Text("a text", "query"))]))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(worker.url + contract.ENCODE_PATH, content=body, timeout=GUARD_SECONDS)
    assert worker.wait() == 1
    assert wait_gone(below)
    assert "makes no step for" in worker.log.read_text()
