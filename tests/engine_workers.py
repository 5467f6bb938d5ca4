"""Worker processes with engines, as the tests ask them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from triptych.loadtests import server_processes
from triptych.workers.shared.contract import (
    ENCODE_PATH,
    EncodeRequest,
    Frame,
    FrameReader,
    Image,
    Item,
    Text,
    encode_request,
)


class Worker(server_processes.Worker):
    """A worker that can be asked."""

    def encode(
        self, items: Sequence[Item], priority: int = 0, queries: Sequence[Text | Image] = ()
    ) -> list[Frame]:
        """Encode items; one frame each, in their order."""
        body = encode_request(EncodeRequest(list(items), priority, list(queries)))
        reply = httpx.post(self.url + ENCODE_PATH, content=body, timeout=300)
        reply.raise_for_status()
        frames = sorted(FrameReader().feed(reply.content), key=lambda frame: frame.index)
        if [frame.index for frame in frames] != list(range(len(items))):
            raise RuntimeError(f"{len(items)} items, but frames {[frame.index for frame in frames]}")
        return frames


@contextlib.contextmanager
def workers(folder: Path, *settings: Mapping[str, object]) -> Iterator[list[Worker]]:
    """Workers, started together and all ready; stopped at the end."""
    started: list[Worker] = []
    try:
        for number, its in enumerate(settings):
            started.append(Worker(folder / f"worker-{number}.log", **its))
        yield [worker.wait_until_ready() for worker in started]
    finally:
        for worker in started:
            worker.kill()
