"""Prometheus as a child process, from PATH or from Debian's package, which is unpacked without root."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fakes.hang_guard import hang_guard
from triptych.loadtests.server_processes import Process, free_port

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
UNPACKED = ROOT / ".triptych" / "prometheus"


def tool(name: str) -> str:
    """Path of `prometheus` or `promtool`. Skips the test where neither is installed nor can be downloaded."""
    if found := shutil.which(name):
        return found
    path = UNPACKED / "usr" / "bin" / name
    if not path.exists():
        _download()
    return str(path)


def _download() -> None:
    UNPACKED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED.parent) as folder:
        try:
            subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs prometheus and promtool on PATH, or apt-get to download them")
        [package] = Path(folder).glob("*.deb")
        new = Path(folder) / "new"
        subprocess.run(["dpkg", "-x", package, new], check=True)
        if not UNPACKED.exists():
            new.rename(UNPACKED)


def alerts() -> dict[str, str]:
    """The expression of each alert rule."""
    [group] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    """The expressions of each panel of the dashboard."""
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in board["panels"]
        if panel["type"] != "row"
    }


def promtool(*arguments: object) -> None:
    """Run `promtool`, which has to find no fault."""
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Prometheus:
    """A running Prometheus."""

    client: httpx.AsyncClient

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that `expression` has now. Fails if it is invalid."""
        reply = await self.client.get("/api/v1/query", params={"query": expression})
        assert reply.status_code == 200, f"{expression}: {reply.text}"
        found: list[dict[str, Any]] = reply.json()["data"]["result"]
        return found

    async def until(self, expression: str) -> None:
        """Wait until `expression` has a series."""
        async with hang_guard():
            while not await self.query(expression):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@asynccontextmanager
async def prometheus(folder: Path, jobs: Sequence[dict[str, Any]]) -> AsyncIterator[Prometheus]:
    """Prometheus with the scrape configurations `jobs`, which it scrapes five times a second."""
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "200ms"}, "scrape_configs": list(jobs)}))
    address = f"127.0.0.1:{free_port()}"
    argv = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    argv += [f"--web.listen-address={address}"]
    process = Process(argv, {}, folder / "prometheus.log", tool("prometheus"))
    try:
        process.wait_ready(f"http://{address}/-/ready")
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            yield Prometheus(client)
    finally:
        process.kill()
