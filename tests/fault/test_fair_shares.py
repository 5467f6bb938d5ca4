"""API keys share a pool: one that floods it neither shuts out nor delays another."""

import asyncio
import hashlib
from typing import Any

import httpx

from tests.fakes.router import eventually, one_worker


def key(name: str, **limits: int) -> dict[str, Any]:
    """The entry of a key whose secret is its name."""
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **limits}


def of(name: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}", **headers}


async def test_refused_flood_is_told_its_share() -> None:
    settings = {"api_keys": [key("greedy"), key("modest")], "queue_items": 512, "lanes": 1, "batch_items": 1}
    async with one_worker("held", **settings) as (router, worker):
        asked = [asyncio.create_task(router.ask(["first"], headers=of("greedy")))]
        await worker.until_batches(1)
        pool = router.fleet.pools["retrieval"]
        for number in range(3):
            asked.append(
                asyncio.create_task(
                    router.ask([f"{number} {index}" for index in range(100)], headers=of("greedy"))
                )
            )
        await eventually(lambda: pool.queue.items == 300)
        # Unread: even a single item of this key is refused, and one of another key is not.
        reply = await router.ask(["more"], headers=of("greedy"))
        assert (reply.status_code, reply.json()["code"]) == (429, "QUEUE_FULL")
        assert "share" in reply.json()["detail"]
        asked.append(asyncio.create_task(router.ask(["modest"], headers=of("modest"))))
        await eventually(lambda: pool.queue.items == 301)
        assert (await router.ask(["unknown"], headers=of("unknown"))).status_code == 401
        worker.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
        await router.until_idle()


def remaining(reply: httpx.Response) -> int:
    return int(reply.headers["x-ratelimit-remaining-tokens"])


async def test_failed_request_pays_for_what_workers_did() -> None:
    async with one_worker(api_keys=[key("one", tokens_per_minute=20_000)]) as (router, _):
        # The last input fails inside the worker, after the others were encoded.
        texts = ["word " * 200] * 9 + ["!token_limit"]
        reply = await router.ask(texts, headers=of("one"))
        assert reply.status_code == 400
        assert remaining(reply) <= 20_000 - 9 * 200
        spent = 20_000 - remaining(reply)
        for _ in range(20_000 // spent + 1):
            reply = await router.ask(texts, headers=of("one"))
        assert (reply.status_code, reply.json()["code"]) == (429, "RATE_TOKEN_LIMIT_EXCEEDED")
        await router.until_idle()
