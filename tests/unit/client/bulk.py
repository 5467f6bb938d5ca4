"""Small bulk runs against a fake deployment."""

from pathlib import Path
from typing import Any

import httpx

from tests.unit.client.fakes import Deployment, refusal
from tests.unit.client.test_bulk_source import write
from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.run import Outcome, run

TEXTS = [f"row {number}" for number in range(41)]
# A text that `Strict` refuses, with every request that contains it.
LONG = "too long"


class Strict(Deployment):
    """Refuses a request with a text that is too long, like the router."""

    def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
        if any(LONG in item for item in asked["input"]):
            return refusal(400, "INPUT_TOKEN_LIMIT_EXCEEDED", "too many tokens")
        return super().embeddings(asked)


def job(
    folder: Path, texts: list[str] = TEXTS, ending: str = "txt", out: str = "out.npy", **options: Any
) -> Job:
    options = {"batch": 4, "concurrency": 3, "dimensions": 16} | options
    return Job(source=write(folder, ending, texts), out=folder / out, **options)


def do(job: Job, deployment: Deployment) -> Outcome:
    return run(job, deployment.async_client(retries=2))
