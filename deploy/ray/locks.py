"""What replicas on one node must not do at the same time: take a port, start on a GPU.

Locks on files in the machine's temporary folder; the kernel lets go of them with the process that holds one.
"""

import asyncio
import fcntl
import os
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.readiness import why_taken

POLL_SECONDS = 0.2


class NodeLock:
    """A named lock of this machine, which one process at a time can hold."""

    def __init__(self, name: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"triptych-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / name
        self._file: int | None = None

    def take(self) -> bool:
        """Whether it is ours now."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def take_port(host: str, ports: Sequence[int]) -> tuple[int, NodeLock]:
    """A port of `ports` that is free on `host`, and ours for as long as the lock is held. Raises `OSError`.

    An engine listens only once it is loaded; without the lock another replica would choose the same port.
    """
    for port in random.sample(ports, len(ports)):
        lock = NodeLock(f"port-{port}")
        if lock.take():
            if why_taken(host, port) is None:
                return port, lock
            lock.release()
    raise OSError(f"no port of {ports[0]}-{ports[-1]} is free on {host}; give more with worker_ports")


@asynccontextmanager
async def held(names: Sequence[str]) -> AsyncIterator[None]:
    """Hold the locks `names`, however long that takes; in one order, so that nobody waits in a circle."""
    locks: list[NodeLock] = []
    try:
        for name in sorted(names):
            lock = NodeLock(name)
            while not lock.take():  # noqa: ASYNC110 (a file's lock says nothing when it is let go)
                await asyncio.sleep(POLL_SECONDS)
            locks.append(lock)
        yield
    finally:
        for lock in locks:
            lock.release()
