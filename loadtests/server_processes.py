"""Servers as child processes, for benchmarks and tests: start, wait until ready, stop."""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

from triptych.workers.shared.contract import LIVE_PATH, READY_PATH, PoolName
from triptych.workers.shared.parent_death import guard_group

# One thread each and a small cache: several engines share two cores and some memory.
ENGINE_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
# Guards against a hang; a loaded machine needs minutes.
START_SECONDS = 900
STOP_SECONDS = 300
# Below the kernel's ports for outgoing connections (net.ipv4.ip_local_port_range): an engine listens only
# after loading, and a connection could have taken its port by then.
PORTS = range(10_000, 32_768)
LOOPBACK = "127.0.0.1"
MAX_WORKERS = 8


def free_port(host: str = LOOPBACK, ports: range = PORTS, count: int = 1) -> int:
    """The first of `count` consecutive free ports of `ports`."""
    while True:
        first = random.choice(range(ports.start, ports.stop - count))
        with contextlib.ExitStack() as listeners:
            try:
                for port in range(first, first + count):
                    listener = listeners.enter_context(socket.socket())
                    listener.bind((host, port))
            except OSError:
                continue
            return first


class Process(subprocess.Popen[bytes]):
    """A child process with its own process group, which ends with us; its output goes to the file `log`."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        python: str | Path = sys.executable,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            super().__init__(
                [python, *argv],
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = guard_group(self.pid)

    def wait_ready(self, url: str) -> None:
        """Return once `url` answers 200.

        Raises `RuntimeError` with the end of the log if the process ends or takes over `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        # One client for all questions: each new one loads the certificate authorities.
        with httpx.Client(timeout=30) as client:
            while time.monotonic() < deadline:
                if (code := self.poll()) is not None:
                    raise RuntimeError(f"ended with {code}:\n{self.tail()}")
                with contextlib.suppress(httpx.TransportError):
                    if client.get(url).status_code == 200:
                        return
                time.sleep(0.1)
        raise RuntimeError(f"{url} is not ready after {START_SECONDS} s:\n{self.tail()}")

    def wait(self, timeout: float | None = STOP_SECONDS) -> int:
        """Wait for the end of the process; return its exit code."""
        return super().wait(timeout)

    def stop(self) -> int:
        """Send SIGTERM, return the exit code, and kill the rest of the group."""
        self.terminate()
        try:
            return self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with self._guard:
            self._guard.kill()
        self.wait()

    def tail(self) -> str:
        """The last lines of the output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class Server(Process):
    """`python -m ARGV` on a `port`, which answers 200 at the path `ready` when it is ready."""

    def __init__(
        self,
        log: Path,
        *argv: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        ready: str = READY_PATH,
        python: str | Path = sys.executable,
    ) -> None:
        self.port, self.url, self._ready = port, f"http://{LOOPBACK}:{port}", ready
        super().__init__(["-m", *argv], environment or {}, log, python)

    def wait_until_ready(self) -> Self:
        self.wait_ready(self.url + self._ready)
        return self


class Worker(Server):
    """`python -m workers` on a port of its own."""

    def __init__(
        self, log: Path, environment: Mapping[str, str] | None = None, /, **settings: object
    ) -> None:
        port = free_port()
        named = {f"WORKER_{name.upper()}": str(value) for name, value in settings.items()}
        own = {**ENGINE_ENVIRONMENT, "WORKER_PORT": str(port), **named, **(environment or {})}
        super().__init__(log, "triptych.workers", port=port, environment=own)


class Router(Server):
    """`python -m router` on a port of its own, in front of workers given as pool and address."""

    def __init__(self, log: Path, workers: Sequence[tuple[PoolName, str]], **settings: object) -> None:
        port = free_port()
        groups = [
            {"targets": [address.removeprefix("http://")], "labels": {"task": pool}}
            for pool, address in workers
        ]
        environment = {f"ROUTER_{name.upper()}": str(value) for name, value in settings.items()}
        environment |= {"ROUTER_PORT": str(port), "ROUTER_WORKERS": json.dumps(groups)}
        # With API keys, readiness would need one.
        ready = LIVE_PATH if "api_keys_file" in settings else READY_PATH
        super().__init__(log, "triptych.router", port=port, environment=environment, ready=ready)


class StockServer(Server):
    """vLLM's own OpenAI server, serving a folder without our plugin."""

    def __init__(self, log: Path, folder: Path, *arguments: str) -> None:
        port = free_port()
        argv = ["--model", str(folder), "--port", str(port), "--host", LOOPBACK]
        argv += ["--served-model-name", "stock", "--runner", "pooling", "--enforce-eager"]
        argv += ["--disable-uvicorn-access-log", "--no-enable-prefix-caching", *arguments]
        module = "vllm.entrypoints.openai.api_server"
        super().__init__(log, module, *argv, port=port, environment=ENGINE_ENVIRONMENT, ready="/health")


class Deployment(Server):
    """`triptych serve` with at most `MAX_WORKERS` workers; by default the demo."""

    def __init__(self, log: Path, state: Path, **environment: str) -> None:
        # Together, so that the router's port is not one of the workers'.
        port = free_port(count=1 + MAX_WORKERS)
        self.worker_port = port + 1
        self.token = secrets.token_urlsafe()
        own = {
            "WORKER_TOKEN": self.token,
            "DEPLOY_MODEL": "demo",
            "DEPLOY_STATE": str(state),
            "DEPLOY_WORKER_PORT": str(self.worker_port),
            "ROUTER_PORT": str(port),
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        super().__init__(log, "triptych", "serve", port=port, environment=own | environment)
