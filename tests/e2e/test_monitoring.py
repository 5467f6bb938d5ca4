"""The dashboard and the alerts in a real Prometheus that scrapes a working deployment."""

import asyncio
import base64
import io
from pathlib import Path

import httpx
from PIL import Image

from tests.prometheus import alerts, panels, prometheus
from triptych.loadtests.server_processes import Deployment

GPU_PANELS = {"Utilization", "Memory used", "Power"}
# A busy machine may fire these.
TIMING = {"TriptychQueriesWait", "TriptychReplicaSlow"}


def requests() -> list[dict[str, object]]:
    """One request for each pool, and one with an image."""
    file = io.BytesIO()
    Image.new("RGB", (56, 56), "teal").save(file, "PNG")
    image = {"image": base64.b64encode(file.getvalue()).decode()}
    tasks = ("retrieval.query", "text-matching", "code.passage")
    return [{"input": [text, image], "task": task} for task in tasks for text in ("a", "some text")]


async def test_panels_have_data_and_nothing_alerts(deployment: Deployment, tmp_path: Path) -> None:
    jobs = [
        {
            "job_name": "triptych-router",
            "static_configs": [{"targets": [deployment.url.removeprefix("http://")]}],
        },
        {
            "job_name": "triptych-worker",
            "authorization": {"credentials": deployment.token},
            "http_sd_configs": [{"url": f"{deployment.url}/targets"}],
            "relabel_configs": [{"source_labels": ["task"], "target_label": "pool"}],
        },
    ]
    queries = [query for title, its in panels().items() if title not in GPU_PANELS for query in its]
    async with (
        prometheus(tmp_path, jobs) as watching,
        httpx.AsyncClient(base_url=deployment.url, timeout=60) as client,
    ):

        async def load() -> None:
            while True:
                for body in requests():
                    (await client.post("/v1/embeddings", json=body)).raise_for_status()

        loading = asyncio.create_task(load())
        try:
            for query in queries:
                await watching.until(query.replace("$__rate_interval", "10s"))
            for name in alerts().keys() - TIMING:
                assert not await watching.query(alerts()[name]), name
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
