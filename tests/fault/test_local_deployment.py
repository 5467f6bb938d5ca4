"""Stop order of a local deployment with a real router of two processes."""

import asyncio
import json
import os
import socket
import sys

import httpx

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.process import ROOT, until_refused
from tests.fakes.router import check, workers_setting
from tests.fakes.worker import FakeWorker, fake_workers
from tests.processes import descendants, wait_gone
from triptych.deploy.common.process_guard import Guard
from triptych.deploy.local.output import Output
from triptych.deploy.local.supervisor import Spec, Supervisor


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_accepted_requests_are_finished() -> None:
    # The test runs the worker that holds a request; the supervisor runs the other.
    holding = FakeWorker()
    holding.mode = "held"
    other, port = FakeWorker("code", port=free_port()), free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    async with fake_workers(holding):
        router = Spec(
            name="router",
            argv=(sys.executable, "-m", "triptych.router"),
            env={
                **environment,
                "ROUTER_PORT": str(port),
                "ROUTER_PROCESSES": "2",
                "ROUTER_WORKERS": json.dumps(workers_setting([holding, other])),
            },
            host="127.0.0.1",
            port=port,
        )
        worker = Spec(
            name="code-0",
            argv=(sys.executable, "-m", "tests.fakes.worker", f"--port={other.port}", "--task=code"),
            env=environment,
            host="127.0.0.1",
            port=other.port,
        )
        ready, guard = asyncio.Event(), Guard()
        supervisor = Supervisor(
            router, [worker], output=Output([]), guard=guard, stop_seconds=20, on_ready=ready.set
        )
        running = asyncio.create_task(supervisor.run())
        try:
            async with hang_guard(), httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as client:
                await ready.wait()
                # Without the guard and the processes of the test runner.
                router_pid, worker_pid = (supervisor.children[name].pid for name in ("router", "code-0"))
                processes = descendants(router_pid)
                assert len(processes) == 2
                pidfds = [os.pidfd_open(pid) for pid in (router_pid, worker_pid, *processes)]
                asked = asyncio.create_task(
                    client.post(
                        f"http://127.0.0.1:{port}/v1/embeddings",
                        json={"input": ["a"], "task": "retrieval.query"},
                    )
                )
                await holding.until_batches(1)
                supervisor.stop()
                await until_refused(f"http://127.0.0.1:{port}")
                assert not asked.done()
                async with httpx.AsyncClient(trust_env=False) as straight:
                    reply = await straight.get(f"http://{other.address}/ready")
                assert reply.status_code == 200, "a worker ended before the router"
                holding.gate.set()
                check(await asked, ["a"])
                await running
            assert wait_gone(pidfds)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            guard.close()
