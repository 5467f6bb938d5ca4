"""Finds what is tested and its metrics, or starts a demo to test."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from triptych.loadtests.calm import Unusable
from triptych.loadtests.dialects import Target
from triptych.loadtests.scrape import Pages
from triptych.loadtests.server_processes import Deployment
from triptych.workers.shared.contract import POOLS

HERE = "http://127.0.0.1:8080"


def find_target(options: argparse.Namespace, stack: ExitStack) -> tuple[Target, str | None]:
    """The target, and the workers' token if it is known.

    Without --url: the deployment on this machine, or a demo that ends with `stack`. Raises `ValueError` and
    `Unusable`.
    """
    addresses, token = _addresses(options.url or [HERE]), options.worker_token
    if not options.url:
        try:
            httpx.get(f"{HERE}/live", timeout=5, trust_env=False)
        except httpx.TransportError:
            demo = _demo(stack)
            addresses, token = {"": demo.url}, demo.token
    target = Target(
        addresses=addresses,
        dialect=options.dialect,
        model=options.model,
        key=options.key,
        verify=not options.insecure,
        timeout=options.timeout,
    )
    return target, token


def _addresses(given: Sequence[str]) -> dict[str, str]:
    addresses = {}
    for text in given:
        pool, equals, url = text.partition("=")
        if not equals or "://" in pool:
            pool, url = "", text
        elif pool not in POOLS:
            raise ValueError(f"--url {text}: unknown pool {pool}; one of {', '.join(POOLS)}")
        addresses[pool] = _checked("--url", url)
    return addresses


def _checked(option: str, url: str) -> str:
    """The address, which the report shows. Raises `ValueError` if it is invalid or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{option} {url}: an address starts with http:// or https://")
    if parts.username is not None:
        raise ValueError(f"{option}: the address of {parts.hostname} holds a name or password; use --key")
    return url


def _demo(stack: ExitStack) -> Deployment:
    log = Path("build/loadtests/demo.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"nothing answers at {HERE}: starting the demo, about a minute (log: {log})", flush=True)
    demo = Deployment(log, Path(".triptych"))
    stack.callback(demo.kill)
    try:
        demo.wait_until_ready()
    except RuntimeError as error:
        raise Unusable(f"the demo did not start: {error}") from None
    # Before the kill, so that its processes end in order.
    stack.callback(demo.stop)
    return demo


def metrics_pages(options: argparse.Namespace, target: Target, token: str | None) -> Pages:
    """Metrics pages to read during a run. Raises `ValueError`."""
    ours = target.dialect == "jina"
    pages: dict[str, tuple[str, str | None]] = {
        f"{'router' if ours else 'server'} {pool}".strip(): (f"{url.rstrip('/')}/metrics", target.key)
        for pool, url in target.addresses.items()
    }
    for address in target.addresses.values() if ours and token else ():
        pages |= _workers(address, target, token)
    for number, url in enumerate(options.metrics or (), 1):
        pages[f"page {number}"] = _checked("--metrics", url), None
    return pages


def _workers(address: str, target: Target, token: str | None) -> Pages:
    """The workers' pages, if a router of ours is at `address`: it lists them for Prometheus (http_sd)."""
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    with httpx.Client(headers=headers, timeout=5, verify=target.verify, trust_env=False) as client:
        try:
            reply = client.get(f"{address}/targets")
            return {
                f"worker {group['labels']['task']} {host}": (f"http://{host}/metrics", token)
                for group in (reply.json() if reply.status_code == 200 else ())
                for host in group["targets"]
            }
        except (httpx.TransportError, ValueError, KeyError, TypeError):
            return {}
