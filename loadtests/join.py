"""A process that sends load: joins a conductor, on this machine or another, and does what it says."""

import asyncio
import contextlib
import socket
import time
import traceback
from collections.abc import Callable

import msgspec
import uvloop

from triptych.loadtests.assignment import LINE_BYTES, Broken, HarnessFailed, Joined, Load, Plan
from triptych.loadtests.generator import Generator, session_for

REPORT_SECONDS = 1.0
WAIT_SECONDS = 120.0
RETRY_SECONDS = 0.5
# Without an answer for so long, the conductor's machine is gone.
LOST_SECONDS = 10

Send = Callable[[msgspec.Struct], None]


def join(host: str, port: int, name: str | None = None) -> None:
    """Join the conductor at `host`:`port` and work until it closes the connection.

    Raises `HarnessFailed` if there is no plan within `WAIT_SECONDS`, or it has all its processes already.
    """
    uvloop.run(_join(host, port, name or socket.gethostname()))


async def _join(host: str, port: int, name: str) -> None:
    reader, writer = await asyncio.open_connection(sock=await _connected(host, port), limit=LINE_BYTES)

    def send(message: msgspec.Struct) -> None:
        # Reading tells when the connection has ended.
        if not writer.is_closing():
            writer.write(msgspec.json.encode(message) + b"\n")

    try:
        send(Joined(name))
        async with asyncio.timeout(WAIT_SECONDS):
            line = await reader.readline()
        if not line:
            raise ConnectionError
    except OSError:
        raise HarnessFailed(f"{host}:{port}: no run waits there, or it has all its --processes") from None
    try:
        plan = msgspec.json.decode(line, type=Plan)
    except msgspec.DecodeError as error:
        raise HarnessFailed(f"{host}:{port}: {error}; start all processes from one version") from None
    loads: asyncio.Queue[Load] = asyncio.Queue()
    working = asyncio.create_task(_work(plan, name, loads, send))
    try:
        # The lines end when the conductor closes the connection, also in the middle of a load.
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                loads.put_nowait(msgspec.json.decode(line, type=Load))
    except OSError as error:
        raise HarnessFailed(f"{host}:{port} is lost: {error}") from None
    finally:
        working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def _connected(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection = socket.create_connection((host.strip("[]"), port), WAIT_SECONDS)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise HarnessFailed(f"{host}:{port}: no run waits there: {error}") from None
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)
            return connection
        await asyncio.sleep(RETRY_SECONDS)


async def _work(plan: Plan, name: str, loads: asyncio.Queue[Load], send: Send) -> None:
    try:
        async with session_for(plan.target) as session, asyncio.TaskGroup() as group:
            generator = Generator(plan, name, session)
            group.create_task(_report(send, generator))
            while True:
                done = await generator.run(await loads.get())
                send(generator.take())
                send(done)
    except Exception:
        why = traceback.format_exc()
        send(Broken(f"failed:\n{why}"))
        raise HarnessFailed(why) from None


async def _report(send: Send, generator: Generator) -> None:
    while True:
        send(generator.take())
        await asyncio.sleep(REPORT_SECONDS)
