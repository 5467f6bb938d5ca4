"""What is tested: where it is, or a demo that is started for it, and where its metrics are."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from loadtests.calm import Unusable
from loadtests.processes import Deployment
from loadtests.scrape import discover
from workers.shared.contract import POOLS

HERE = "http://127.0.0.1:8080"


def find_target(options: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, str], str | None]:
    """Addresses by pool ("" for all), and the workers' token where it is known.

    Without an address it is the deployment on this machine, or a demo that is started, and ends with `stack`.
    """
    if options.url:
        return _addresses(options.url), options.worker_token
    try:
        httpx.get(f"{HERE}/live", timeout=5, trust_env=False)
    except httpx.TransportError:
        return _demo(stack)
    return {"": HERE}, options.worker_token


def _addresses(given: Sequence[str]) -> dict[str, str]:
    target = {}
    for text in given:
        pool, equals, url = text.partition("=")
        if not equals or "://" in pool:
            pool, url = "", text
        elif pool not in POOLS:
            raise ValueError(f"--url {text}: {pool} is no pool; there are {', '.join(POOLS)}")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--url {text}: an address begins with http:// or https://")
        target[pool] = url
    return target


def _demo(stack: ExitStack) -> tuple[dict[str, str], str]:
    log = Path("build/loadtests/demo.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"nothing answers at {HERE}: starting the demo, which takes about a minute (its log: {log})",
        flush=True,
    )
    demo = Deployment(log, Path(".triptych"))
    stack.callback(demo.kill)
    try:
        demo.wait_until_ready()
    except RuntimeError as error:
        raise Unusable(f"the demo did not start: {error}") from None
    # Politely first, so that its own processes end in order.
    stack.callback(demo.stop)
    return {"": demo.url}, demo.token


def pages_of(
    options: argparse.Namespace, target: dict[str, str], token: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Where metrics are, by what they are of, and the bearer token of each that wants one."""
    label = "router" if options.dialect == "jina" else "server"
    pages = {f"{label} {pool}".strip(): f"{url.rstrip('/')}/metrics" for pool, url in target.items()}
    keys = dict.fromkeys(pages, options.key) if options.key else {}
    if options.dialect == "jina" and token:
        for url in target.values():
            workers = _workers(url, options)
            pages |= workers
            keys |= dict.fromkeys(workers, token)
    pages |= {f"page {number + 1}": url for number, url in enumerate(options.metrics or ())}
    return pages, {source: key for source, key in keys.items() if key}


def _workers(url: str, options: argparse.Namespace) -> dict[str, str]:
    """The pages of the workers that a router of ours has; none where it is something else."""
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    try:
        reply = httpx.get(
            f"{url}/targets", headers=headers, timeout=5, verify=not options.insecure, trust_env=False
        )
        return discover(reply.json()) if reply.status_code == 200 else {}
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return {}
