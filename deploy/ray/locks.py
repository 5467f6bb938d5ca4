"""Locks between the replicas on one node: each takes its own port, and one at a time starts on a GPU.

The kernel releases a lock when its process ends.
"""

import os
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from filelock import AsyncFileLock, FileLock, Timeout

from triptych.workers.shared.host_ports import why_taken

POLL_SECONDS = 0.2


def take_port(host: str, ports: Sequence[int]) -> tuple[int, FileLock]:
    """A free port on `host`, reserved until the lock is released. Raises `OSError`.

    An engine listens only after it has loaded; without the lock another replica could choose the same port.
    """
    for port in random.sample(ports, len(ports)):
        lock = FileLock(_path(f"port-{port}"), mode=0o600, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        if why_taken(host, port) is None:
            return port, lock
        lock.release()
    raise OSError(f"no port of {ports[0]}-{ports[-1]} is free on {host}; give more with worker_ports")


@asynccontextmanager
async def gpus_locked(gpus: Sequence[str]) -> AsyncIterator[None]:
    """Wait for the locks of all `gpus` and hold them."""
    async with AsyncExitStack() as stack:
        # In one order, so that two replicas do not wait for each other.
        for gpu in sorted(gpus):
            lock = AsyncFileLock(
                _path(f"gpu-{gpu}"), mode=0o600, poll_interval=POLL_SECONDS, run_in_executor=False
            )
            await stack.enter_async_context(lock)
        yield


def _path(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"triptych-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name
