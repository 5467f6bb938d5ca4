"""A process that sends load: joins a conductor, on this machine or another, and does what it says.

Importing it imports locust, which patches sockets and clocks of the whole process.
"""

import contextlib
import logging
import socket
import time
import traceback

import gevent

from triptych.loadtests.assignment import (
    Broken,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Prepared,
    Sampled,
    ToProcess,
)
from triptych.loadtests.channel import Channel
from triptych.loadtests.generator import Generator

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
WAIT_SECONDS = 60.0


def join(address: str, name: str | None = None) -> None:
    """Join the conductor at `address` (host:port) and work until it closes the connection.

    Raises `HarnessFailed` if it does not listen within `WAIT_SECONDS`, or has all its processes already.
    """
    host, _, port = address.rpartition(":")
    name = name or socket.gethostname()
    try:
        connection = _connect(host.strip("[]"), int(port))
        channel = Channel[ToProcess](connection, ToProcess)
        channel.send(Joined(name))
        plan = channel.receive()
    except (EOFError, OSError) as error:
        raise HarnessFailed(
            f"{address}: {error}; no run waits there, or it has all its --processes"
        ) from None
    assert isinstance(plan, Plan)
    # It ends when the conductor closes the connection, also in the middle of a load.
    with contextlib.suppress(EOFError, OSError):
        try:
            _serve(channel, Generator(plan, name))
        except (EOFError, OSError):
            raise
        except Exception:
            log.exception("this process of the load tester failed")
            channel.send(Broken(traceback.format_exc()))


def _connect(host: str, port: int) -> socket.socket:
    """Wait for the conductor to listen. Raises `OSError`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return socket.create_connection((host, port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _serve(channel: Channel[ToProcess], generator: Generator) -> None:
    channel.send(Prepared())
    working = gevent.spawn(_work, channel, generator)
    try:
        while not working.ready():
            working.join(REPORT_SECONDS)
            channel.send(Sampled(generator.take()))
        working.get()
    finally:
        working.kill()


def _work(channel: Channel[ToProcess], generator: Generator) -> None:
    with contextlib.suppress(EOFError, OSError):
        while isinstance(load := channel.receive(), Load):
            done = generator.run(load)
            channel.send(Sampled(generator.take()))
            channel.send(done)
