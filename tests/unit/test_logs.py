"""What a line of a log says: its form, and which requests it belongs to."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.router import eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.workers.shared import logs
from triptych.workers.shared.contract import REQUESTS_HEADER

ONE, TWO = "1" * 32, "2" * 32


class Lines(logging.Handler):
    """Keeps what each formatter makes of a record, as it is emitted."""

    def __init__(self) -> None:
        super().__init__()
        self.plain: list[str] = []
        self.json: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.plain.append(logs.PlainFormatter().format(record))
        self.json.append(json.loads(logs.JsonFormatter().format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def test_line_without_a_request(lines: Lines) -> None:
    logging.getLogger("router.x").warning("three of %d", 4)
    assert lines.plain[0].endswith(" WARNING router.x: three of 4")
    assert str(lines.json[0].pop("time")).endswith("+00:00")
    assert lines.json == [
        {"level": "warning", "logger": "router.x", "process": os.getpid(), "message": "three of 4"}
    ]


async def test_tasks_keep_their_own_requests(lines: Lines) -> None:
    async def work(request: str) -> None:
        logs.requests.set((request,))
        await asyncio.sleep(0)
        logging.getLogger("x").warning(request)

    await asyncio.gather(work(ONE), work(TWO))
    assert [line["request_id"] for line in lines.json] == [ONE, TWO]
    endings = [line.rpartition("x: ")[2] for line in lines.plain]
    assert endings == [f"{ONE} [request {ONE}]", f"{TWO} [request {TWO}]"]


def test_many_requests_are_cut_to_a_few() -> None:
    assert logs.some("aabbc") == ("a", "b", "c")
    assert logs.some("abcdeff") == ("a", "b", "c", "d", "e", "...")


def test_traceback_stays_in_its_object(lines: Lines) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: broken" in str(lines.json[0]["exception"])


async def test_failed_batch_names_its_requests(lines: Lines) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker, lanes=1) as router:
        worker.mode = "held"
        first = asyncio.create_task(router.ask(["first"]))
        await worker.until_batches(1)
        worker.script.append("error")
        others = [
            asyncio.create_task(router.ask([number], headers={"x-request-id": number}))
            for number in (ONE, TWO)
        ]
        await eventually(lambda: router.waiting_items == 2)
        worker.mode = "healthy"
        worker.gate.set()
        replies = await asyncio.gather(first, *others)
        assert [reply.status_code for reply in replies] == [200] * 3
        [failed] = [line for line in lines.json if "500 boom" in str(line["message"])]
        assert failed["request_ids"] in ([ONE, TWO], [TWO, ONE])
        assert worker.headers[1][REQUESTS_HEADER] in (f"{ONE},{TWO}", f"{TWO},{ONE}")


async def test_bug_is_logged_with_its_request(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), running_router(worker) as router:
        monkeypatch.setattr(router.fleet, "not_ready", lambda: 1 / 0)
        reply = await router.client.get("/ready", headers={"x-request-id": ONE})
        assert reply.status_code == 500
    [bug] = [line for line in lines.json if "This is a bug" in str(line["message"])]
    assert bug["request_id"] == ONE
    assert "ZeroDivisionError" in str(bug["exception"])


def test_engine_logs_like_its_worker() -> None:
    program = (
        "import logging; from triptych.workers.shared import logs; logs.configure_engine('json');"
        "logs.configure_in_engine(); logging.getLogger('vllm.x').info('loaded')"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(ended.stderr)["message"] == "loaded"
