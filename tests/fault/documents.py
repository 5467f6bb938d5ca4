"""A discovery document in a file, and a router that reads it often."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.router import RunningRouter, running_router, workers_setting
from tests.fakes.worker import FakeWorker


class Document:
    """A file that lists workers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(
        self,
        *workers: FakeWorker,
        empty: Sequence[str] = (),
        fewest: str | None = "0",
        versions: Mapping[FakeWorker, str] | None = None,
    ) -> None:
        """List only `workers`, and `empty` pools with `fewest` as `min_replicas`."""
        named = workers_setting(workers)
        for group, worker in zip(named, workers, strict=True):
            if versions is not None:
                group["labels"]["version"] = versions[worker]
        label = {} if fewest is None else {"min_replicas": fewest}
        without = [{"targets": [], "labels": {"task": task, **label}} for task in empty]
        self.write(json.dumps([*named, *without]))

    def write(self, text: str) -> None:
        """Replace the file atomically."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.path)

    def remove(self) -> None:
        self.path.unlink()


@asynccontextmanager
async def discovering(
    source: Document | str, *workers: FakeWorker, **settings: Any
) -> AsyncIterator[RunningRouter]:
    """A router that reads `source` every 10 ms; a document lists `workers` first."""
    if isinstance(source, Document) and workers:
        source.name(*workers)
    location = source if isinstance(source, str) else source.path
    async with running_router(discovery=str(location), discovery_seconds=0.01, **settings) as router:
        yield router
