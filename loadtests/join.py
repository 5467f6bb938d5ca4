"""A process that sends load: joins a conductor, on this machine or another, and does what it says.

Importing it imports locust, which patches sockets and clocks of the whole process.
"""

import logging
import socket
import traceback
from typing import Any

import gevent
import msgspec
import zmq.green as zmq

from triptych.loadtests.assignment import Broken, HarnessFailed, Joined, Load, Plan, Sampled, ToProcess
from triptych.loadtests.generator import Generator

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
WAIT_SECONDS = 120
# Without an answer for so long, the conductor's machine is gone.
LOST_SECONDS = 10
# For the last message, after a failure.
LINGER_SECONDS = 1


def join(address: str, name: str | None = None) -> None:
    """Join the conductor at `address` (host:port) and work until it closes the connection.

    Raises `HarnessFailed` if there is no plan within `WAIT_SECONDS`, or it has all its processes already.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as connection:
        connection.setsockopt(zmq.IPV6, 1)
        connection.setsockopt(zmq.LINGER, LINGER_SECONDS * 1000)
        connection.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        connection.setsockopt(zmq.HEARTBEAT_TIMEOUT, LOST_SECONDS * 1000)
        with connection.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            connection.connect(f"tcp://{address}")
            working = gevent.spawn(_work, connection, address, name or socket.gethostname())
            closed: Any = gevent.spawn(monitor.recv_multipart)
            # It ends when the conductor closes the connection, also in the middle of a load.
            gevent.joinall([working, closed], count=1)
            gevent.killall([working, closed])
            connection.disable_monitor()
    if isinstance(working.exception, HarnessFailed):
        raise working.exception


def _work(connection: Any, address: str, name: str) -> None:
    def send(message: msgspec.Struct) -> None:
        connection.send(msgspec.msgpack.encode(message))

    send(Joined(name))
    if not connection.poll(WAIT_SECONDS * 1000):
        raise HarnessFailed(f"{address}: no run waits there")
    plan = msgspec.msgpack.decode(connection.recv(), type=ToProcess)
    if not isinstance(plan, Plan):
        raise HarnessFailed(f"{address}: the run has all its --processes")
    try:
        generator = Generator(plan, name)
        reporting = gevent.spawn(_report, send, generator)
        try:
            while True:
                done = generator.run(msgspec.msgpack.decode(connection.recv(), type=Load))
                send(Sampled(generator.take()))
                send(done)
        finally:
            reporting.kill()
    except Exception:
        log.exception("this process of the load tester failed")
        send(Broken(traceback.format_exc()))


def _report(send: Any, generator: Generator) -> None:
    while True:
        send(Sampled(generator.take()))
        gevent.sleep(REPORT_SECONDS)
