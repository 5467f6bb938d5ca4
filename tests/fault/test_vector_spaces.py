"""Vector spaces: named in replies, required by clients, never mixed in a reply."""

import asyncio

import httpx
import msgspec
import numpy as np
import pytest

from tests.fakes.frames import source, vector_of
from tests.fakes.router import PATIENT, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.documents import Document, discovering
from triptych.router.pool.replica import State
from triptych.workers.shared import contract

OLD, NEW = "a" * 16, "b" * 16


def worker(space: str, task: contract.PoolName = "retrieval") -> FakeWorker:
    return FakeWorker(task, dimensions=64, space=space)


def spaces_in(reply: httpx.Response, texts: list[str]) -> set[str]:
    """The spaces of the vectors in `reply`."""
    found = set()
    for entry, text in zip(reply.json()["data"], texts, strict=True):
        wire = contract.Item(contract.Text(text, "query"))
        got = np.array(entry["embedding"], np.float32)
        [space] = [
            space
            for space in (OLD, NEW)
            if np.array_equal(
                got, np.frombuffer(vector_of(source("retrieval", space), wire, 64).data, np.float32)
            )
        ]
        found.add(space)
    return found


async def test_replies_name_their_vector_space() -> None:
    one, code = worker(OLD), worker(NEW, "code")
    async with fake_workers(one, code), running_router(one, code) as router:
        reply = await router.post(input=["a"])
        assert reply.headers["x-vector-space"] == f"retrieval={OLD}"
        both = [{"text": "a", "task": "code.query"}, {"text": "b", "task": "retrieval.passage"}]
        reply = await router.post(input=both)
        assert set(reply.headers["x-vector-space"].split(", ")) == {f"retrieval={OLD}", f"code={NEW}"}
        npy = await router.post(input=["a"], headers={"Accept": "application/x-npy"})
        assert npy.headers["x-vector-space"] == f"retrieval={OLD}"
        ranking = {"query": "a", "documents": ["b"]}
        reply = await router.client.post("/v1/rerank", json=ranking)
        assert reply.headers["x-vector-space"] == f"retrieval={OLD}"
        expected = {"retrieval": [OLD], "code": [NEW]}
        assert (await router.client.get("/ready")).json()["vector_spaces"] == expected
        [model] = (await router.client.get("/v1/models")).json()["data"]
        assert model["vector_spaces"] == expected


@pytest.mark.parametrize(
    ("required", "status"),
    [
        (OLD, 200),
        (f"retrieval={OLD}", 200),
        (f"{NEW}, {OLD}", 200),
        (NEW, 412),
        ("", 422),
        ("two words", 422),
        (f"retreival={OLD}", 422),
        (f"{OLD},", 422),
    ],
)
async def test_client_may_require_a_space(required: str, status: int) -> None:
    one = worker(OLD)
    async with fake_workers(one), running_router(one) as router:
        headers = {"x-require-vector-space": required}
        reply = await router.post(input=["a"], headers=headers)
        assert reply.status_code == status
        if status == 412:
            assert reply.json()["code"] == "VECTOR_SPACE_MISMATCH"
            assert OLD in reply.json()["detail"]
        ranked = await router.client.post(
            "/v1/rerank", json={"query": "a", "documents": ["b"]}, headers=headers
        )
        assert ranked.status_code == status
        assert len(one.batches) == (2 if status == 200 else 0)


async def test_upgrade_never_mixes_spaces_in_a_reply(document: Document) -> None:
    old, new = worker(OLD), worker(NEW)
    versions = {old: "1", new: "2"}
    async with fake_workers(old, new):
        document.name(old, new, versions=versions)
        async with discovering(document, batch_items=4, lanes=2, **PATIENT) as router:
            await router.until_state(old, State.READY)
            await router.until_state(new, State.READY)
            assert router.fleet.spaces["retrieval"] == [OLD, NEW]
            many = [[f"{number} {place}" for place in range(40)] for number in range(20)]
            replies = await asyncio.gather(*(router.post(input=texts) for texts in many))
            seen = set()
            for reply, texts in zip(replies, many, strict=True):
                assert reply.status_code == 200
                [space] = spaces_in(reply, texts)
                assert reply.headers["x-vector-space"] == f"retrieval={space}"
                seen.add(space)
            assert seen == {OLD, NEW}
            for required in (OLD, NEW):
                reply = await router.post(input=many[0], headers={"x-require-vector-space": required})
                assert spaces_in(reply, many[0]) == {required}
            await router.until_idle()


@pytest.mark.parametrize(("required", "killed"), [(False, False), (False, True), (True, True)])
async def test_removed_space_restarts_the_request(document: Document, required: bool, killed: bool) -> None:
    old, new = worker(OLD), worker(NEW)
    versions = {old: "1", new: "2"}
    texts = [f"text {place}" for place in range(8)]
    async with fake_workers(old, new):
        document.name(old, versions=versions)
        async with discovering(document, batch_items=2, lanes=1) as router:
            await router.until_state(old, State.READY)
            old.script.extend(["healthy", "held"])
            headers = {"x-require-vector-space": OLD} if required else None
            asked = asyncio.create_task(router.post(input=texts, headers=headers))
            await old.until_batches(2)
            document.name(old, new, versions=versions)
            await router.until_state(new, State.READY)
            document.name(new, versions=versions)
            await eventually(lambda: not router.knows(old))
            if killed:
                await old.die()
            else:
                old.gate.set()
            reply = await asked
            if required:
                assert reply.status_code == 412
            else:
                assert reply.status_code == 200
                assert spaces_in(reply, texts) == {NEW}
                assert reply.headers["x-vector-space"] == f"retrieval={NEW}"
            await router.until_idle()


async def test_changed_space_is_noticed_in_replies() -> None:
    one = worker(OLD)
    async with fake_workers(one), running_router(one, hold_seconds=60) as router:
        one.info = msgspec.structs.replace(one.info, space=NEW)
        reply = await router.post(input=["a", "b"])
        assert reply.headers["x-vector-space"] == f"retrieval={NEW}"
        assert spaces_in(reply, ["a", "b"]) == {NEW}
