"""Replies that are not what was asked for; most tests run with each client."""

from contextlib import nullcontext

import httpx
import numpy as np
import pytest

from tests.unit.client.fakes import Call, Deployment, entry, reply_with, sync_call
from triptych.router.client import requests
from triptych.router.client.errors import ReplyInvalid


def test_rerank_refuses_unknown_document(call: Call) -> None:
    bad = httpx.Response(200, json={"results": [{"index": -1, "relevance_score": 1}]})
    with pytest.raises(ReplyInvalid, match="document -1"):
        call(Deployment(bad), "rerank", "query", ["a"])


@pytest.mark.parametrize("top_n", [None, 2, 9])
def test_rerank_refuses_another_number_of_documents(call: Call, top_n: int | None) -> None:
    few = httpx.Response(200, json={"results": [{"index": 0, "relevance_score": 1}]})
    with pytest.raises(ReplyInvalid, match="'results' should have 2"):
        call(Deployment(few), "rerank", "query", ["a", "b"], top_n=top_n)


def test_vectors_of_other_dimensions_are_refused(call: Call) -> None:
    reply = reply_with(entry(0, [1.0, 0.0]))
    assert call(Deployment(reply), "embed", "a", dimensions=2).shape == (1, 2)
    with pytest.raises(ReplyInvalid, match="3 dimensions were requested, 2 returned"):
        call(Deployment(reply), "embed", "a", dimensions=3)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (reply_with(entry(0, [1.0])), "'data' should have 2"),
        (reply_with(entry(0, [1.0]), entry(0, [1.0])), "indexes"),
        (reply_with(entry(0, [1.0]), entry(2, [1.0])), "indexes"),
        (reply_with(entry(0, [1.0]), entry(1, [1.0, 0.0])), "different lengths"),
        (reply_with(entry(0, [1.0]), entry(1, [np.nan])), "not finite"),
        (reply_with(entry(0, [1.0]), entry(1, [])), "empty"),
        (reply_with(entry(0, [1.0]), {"index": 1, "embedding": "AAA="}), "float32"),
        (reply_with(entry(0, [1.0]), {"index": 1, "embedding": [1.0]}), "'embedding'"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json=[1]), "'data'"),
    ],
)
def test_invalid_replies_are_refused(call: Call, reply: httpx.Response, message: str) -> None:
    with pytest.raises(ReplyInvalid, match=message):
        call(Deployment(reply), "embed", ["a", "b"])


@pytest.mark.parametrize("multi", [False, True])
def test_mixed_vector_spaces_are_refused(multi: bool) -> None:
    class Upgraded(Deployment):
        def answer(self, request: httpx.Request) -> httpx.Response:
            reply = super().answer(request)
            reply.headers["x-vector-space"] = f"text-matching={len(self.asked)}, code=same"
            return reply

    texts = ["a"] * (requests.MAX_ITEMS + 1)
    with Upgraded().client() as client, pytest.raises(ReplyInvalid, match="from 1 to 2"):
        (client.embed_multi if multi else client.embed)(texts)
    with Deployment().client() as client:
        assert len(client.embed(texts)) == len(texts)


@pytest.mark.parametrize(
    ("required", "accepted"),
    [
        ("served", True),
        ("text-matching=other, text-matching=served, code=other", True),
        ("code=other", True),
        ("other", False),
        ("text-matching=other, code=served", False),
        ("text-matching=other, served", False),
    ],
)
def test_server_that_ignores_required_space_is_refused(call: Call, required: str, accepted: bool) -> None:
    reply = reply_with(entry(0, [1.0]))
    reply.headers["x-vector-space"] = "text-matching=served"
    with nullcontext() if accepted else pytest.raises(ReplyInvalid, match="text-matching=served"):
        call(Deployment(reply), "embed", "a", vector_space=required)


def test_parts_of_different_width_are_refused() -> None:
    first = reply_with(*(entry(index, [1.0, 0.0]) for index in range(512)))
    with pytest.raises(ReplyInvalid, match=r"\[2, 8\]"):
        sync_call(Deployment(first), "embed", ["x"] * 513)
