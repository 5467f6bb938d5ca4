"""A process that sends load: joins a conductor, on this machine or another, and does what it says."""

import asyncio
import contextlib
import socket
import time
import traceback

import aiohttp
import msgspec
import uvloop

from triptych.loadtests.assignment import (
    HEARTBEAT_SECONDS,
    MESSAGE_BYTES,
    Broken,
    HarnessFailed,
    Load,
    Plan,
    ToConductor,
)
from triptych.loadtests.generator import Generator, session_for
from triptych.workers.shared.host_ports import address_of

REPORT_SECONDS = 1.0
WAIT_SECONDS = 120.0
RETRY_SECONDS = 0.5

Conductor = aiohttp.ClientWebSocketResponse


def join(host: str, port: int, name: str | None = None) -> None:
    """Join the conductor at `host`:`port` and work until it closes the connection.

    Raises `HarnessFailed` if there is no plan within `WAIT_SECONDS`, or it has all its processes already.
    """
    uvloop.run(_join(host, port, name or socket.gethostname()))


async def _join(host: str, port: int, name: str) -> None:
    # An argument of a command may have bytes that are not UTF-8.
    name = name.encode(errors="replace").decode()
    address = address_of(host.strip("[]"), port)
    async with aiohttp.ClientSession() as session, await _connected(session, address, name) as conductor:
        try:
            plan = msgspec.json.decode(await conductor.receive_bytes(timeout=WAIT_SECONDS), type=Plan)
        except (TypeError, TimeoutError):
            raise HarnessFailed(f"{address}: no run waits there") from None
        except msgspec.DecodeError as error:
            raise HarnessFailed(f"{address}: {error}; start all processes from one version") from None
        loads: asyncio.Queue[Load] = asyncio.Queue()
        working = asyncio.create_task(_work(plan, name, loads, conductor))
        try:
            # The messages end when the conductor closes the connection, also in the middle of a load.
            async for message in conductor:
                if message.type is aiohttp.WSMsgType.ERROR:
                    raise HarnessFailed(f"{address} is lost: {message.data}")
                loads.put_nowait(msgspec.json.decode(message.data, type=Load))
        finally:
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def _connected(session: aiohttp.ClientSession, address: str, name: str) -> Conductor:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            # What listens there may never answer.
            async with asyncio.timeout(max(deadline - time.monotonic(), RETRY_SECONDS)):
                return await session.ws_connect(
                    f"http://{address}/",
                    params={"name": name},
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES,
                )
        except aiohttp.WSServerHandshakeError:
            raise HarnessFailed(f"{address}: no run waits there, or it has all its --processes") from None
        except (aiohttp.ClientError, OSError) as error:
            if time.monotonic() >= deadline:
                raise HarnessFailed(f"{address}: no run waits there: {error}") from None
        await asyncio.sleep(RETRY_SECONDS)


async def _work(plan: Plan, name: str, loads: asyncio.Queue[Load], conductor: Conductor) -> None:
    try:
        async with session_for(plan.target) as session, asyncio.TaskGroup() as group:
            # In a thread, because the conductor wants signs of life meanwhile.
            generator = await asyncio.to_thread(Generator, plan, name, session)
            group.create_task(_report(conductor, generator))
            while True:
                done = await generator.run(await loads.get())
                await _send(conductor, generator.take())
                await _send(conductor, done)
    except Exception:
        why = traceback.format_exc()
        await _send(conductor, Broken(f"{name} failed:\n{why}"))
        raise HarnessFailed(why) from None


async def _report(conductor: Conductor, generator: Generator) -> None:
    while True:
        await _send(conductor, generator.take())
        await asyncio.sleep(REPORT_SECONDS)


async def _send(conductor: Conductor, message: ToConductor) -> None:
    # Reading tells when the connection has ended.
    with contextlib.suppress(ConnectionError):
        await conductor.send_bytes(msgspec.json.encode(message))
