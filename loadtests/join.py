"""A process that puts load on: joins a conductor, on this machine or another, and does what it says.

Importing it imports locust, which makes sockets and clocks cooperative in the whole process.
"""

import logging
import socket
import traceback
from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from greenlet import greenlet
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests import plan as messages
from loadtests.failed import HarnessFailed
from loadtests.generator import Generator
from loadtests.plan import Load, Plan
from loadtests.recording import Samples
from loadtests.users import CLASSES, prepare

log = logging.getLogger(__name__)


class Member:
    """One process. `name` is for the report, such as the machine's."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self._name, self._address = name, f"{host}:{port}"
        self._generator: Generator | None = None
        environment = Environment(user_classes=list(CLASSES.values()))
        self._runner: WorkerRunner = environment.create_worker_runner(host, port)
        self._loading: greenlet | None = None
        self._refused: str | None = None
        for kind, listener in ((messages.PLAN, self._plan), (messages.LOAD, self._load)):
            self._runner.register_message(kind, self._guarded(listener), concurrent=True)
        self._runner.register_message(messages.ABANDON, self._abandon)
        self._runner.register_message(messages.REFUSED, self._refuse, concurrent=True)
        self._runner.send_message(messages.JOINED, {"name": name})

    def wait(self) -> None:
        """Return once the conductor says that it is over, or is gone. Raises `HarnessFailed` where it has
        processes enough."""
        self._runner.greenlet.join()
        if self._refused is not None:
            raise HarnessFailed(self._refused)

    def _plan(self, data: dict[str, Any]) -> None:
        plan = msgspec.msgpack.decode(data["plan"], type=Plan)
        self._generator = Generator(plan, self._name, data["process"], data["processes"])
        prepare(self._generator)
        self._send(messages.PREPARED, b"")

    def _load(self, data: dict[str, Any]) -> None:
        load = msgspec.msgpack.decode(data["load"], type=Load)
        assert self._generator is not None
        self._loading = gevent.getcurrent()

        def report(samples: Samples) -> None:
            data = {"number": load.number, "samples": msgspec.msgpack.encode(samples)}
            self._runner.send_message(messages.SAMPLES, data)

        self._send(messages.DONE, msgspec.msgpack.encode(self._generator.run(load, report)))

    def _abandon(self, msg: Any, **_: Any) -> None:
        """End the load that is under way; locust's own message that it is over comes next."""
        # Or that would wait for the users' requests as long as one may take, and for the one of an open loop,
        # which never ends by itself, all of that time.
        self._runner.environment.stop_timeout = 0
        if self._loading is not None:
            gevent.killall([self._loading])

    def _refuse(self, msg: Any, **_: Any) -> None:
        size = msg.data["size"]
        self._refused = f"{self._address} has the {size} it waits for; its --processes says how many"
        self._runner.greenlet.kill()

    def _send(self, kind: str, data: bytes) -> None:
        self._runner.send_message(kind, {"data": data})

    def _guarded(self, listener: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
        def listen(msg: Any, **_: Any) -> None:
            try:
                listener(msg.data)
            except gevent.GreenletExit:
                raise
            except Exception:
                log.exception("this process of the harness failed")
                self._send(messages.BROKEN, traceback.format_exc().encode())

        return listen


def join(address: str, name: str | None = None) -> None:
    """Join the conductor at `address` (host:port) and work for it until it is done."""
    host, _, port = address.rpartition(":")
    Member(host.strip("[]"), int(port), name or socket.gethostname()).wait()
