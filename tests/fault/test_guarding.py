"""Stalled bodies, worker tokens, key files, and secrets in logs and replies, on real sockets."""

import asyncio
import hashlib
import json
import logging
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.fakes.clock import skip
from tests.fakes.hang_guard import hang_guard
from tests.fakes.process import router_process
from tests.fakes.router import eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.connections import no_workers, refused
from triptych.router.pool.replica import State

KEY = "triptych_a-key-that-no-output-may-hold"
TOKEN = "a-token-that-no-output-may-hold"
ENTRY = {"name": "alice", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("path", "framing"),
    [("/v1/embeddings", "Content-Length: 100"), ("/v1/rerank", "Transfer-Encoding: chunked")],
)
async def test_stalled_body_returns_504_and_closes(path: str, framing: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\nx-request-timeout-seconds: 0.1\r\n\r\n"
    async with no_workers() as router:
        reply = await refused(router, head.encode() + b"1\r\n{\r\n")
        assert (reply.status_code, reply.json()["code"]) == (504, "SERVICE_TIMEOUT")


@pytest.mark.parametrize("sent", [None, SecretStr("another-token-that-none-may-see")])
async def test_rejected_worker_token_is_reported(
    sent: SecretStr | None, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FakeWorker()
    worker.token = TOKEN
    async with fake_workers(worker), running_router(worker, wait=False, worker_token=sent) as router:
        await eventually(lambda: "ROUTER_WORKER_TOKEN" in router.replica(worker).reason)
        assert "refuses the token" in (await router.client.get("/ready")).json()["pools"]["retrieval"]
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "set ROUTER_WORKER_TOKEN to its WORKER_TOKEN" in errors[0].getMessage()
        worker.token = sent.get_secret_value() if sent else None
        await router.until_state(worker, State.READY)


async def test_token_rejection_retries_elsewhere() -> None:
    workers = [FakeWorker(), FakeWorker()]
    async with fake_workers(*workers), running_router(*workers) as router:
        workers[0].token = TOKEN
        replies = await asyncio.gather(*(router.ask([f"text {number}"]) for number in range(20)))
        assert {reply.status_code for reply in replies} == {200}
        await eventually(lambda: "refuses the token" in router.replica(workers[0]).reason)


async def test_key_file_is_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("[]")
    async with no_workers(api_keys_file=path) as router:
        assert (await router.client.get("/v1/models", headers=BEARER)).status_code == 401
        path.write_text(json.dumps([ENTRY]))
        while (await router.client.get("/v1/models", headers=BEARER)).status_code == 401:
            skip(1)


async def test_logs_and_replies_hide_secrets(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """At debug level, with failures of clients, keys and workers."""
    worker = FakeWorker()
    worker.token = TOKEN
    keys = tmp_path / "keys"
    keys.write_text(json.dumps([ENTRY | {"requests_per_minute": 1000}]))
    said: list[str] = []
    async with (
        fake_workers(worker),
        router_process(
            worker,
            ROUTER_LOG_LEVEL="debug",
            ROUTER_API_KEYS_FILE=str(keys),
            ROUTER_WORKER_TOKEN=TOKEN,
            ROUTER_LIMITS_FILE=str(tmp_path / "limits"),
        ) as router,
    ):
        await router.until_it_answers("/live")
        client = router.client

        async def ask(
            key: str | None = KEY, content: str = '{"input": "a", "task": "retrieval.query"}'
        ) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            reply = await client.post("/v1/embeddings", content=content, headers=headers)
            said.extend((reply.text, str(reply.headers)))
            return reply.status_code

        async with hang_guard():
            while await ask() != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await ask(None) == 401
        assert await ask(KEY + "x") == 401
        assert await ask(content="{") == 422
        assert await ask(content='{"input": 1}') == 422
        assert await ask(content='{"input": "a", "model": "x"}') == 400
        for mode in ("error", "cut", "reset", "garbage", "not finite", "rejecting"):
            worker.script.extend([mode] * 3)  # type: ignore[list-item]
            await ask()
        worker.token = "another-token-altogether"
        async with hang_guard():
            while "refuses the token" not in (await client.get("/ready", headers=BEARER)).text:
                await ask()
        keys.write_text(f'["{KEY}"]')
        await worker.die()
        assert await ask() == 503
        await router.ended(signal.SIGTERM)
    output = "".join(capfd.readouterr()) + "".join(said)
    assert "refuses the token" in output
    assert not [secret for secret in (KEY, TOKEN, ENTRY["sha256"]) if secret in output]
