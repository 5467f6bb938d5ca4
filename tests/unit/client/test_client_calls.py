"""What both clients send and return; most tests run with each."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes.hang_guard import hang_guard
from tests.unit.client.fakes import (
    URL,
    Call,
    Deployment,
    async_call,
    entry,
    matrix_of,
    refusal,
    reply_with,
    sync_call,
    vector_of,
)
from triptych.router.client import AsyncClient, Client, Image, requests
from triptych.router.client.errors import TooLarge
from triptych.router.client.requests import TASKS
from triptych.router.settings import RouterSettings
from triptych.workers.shared.families import FAMILIES


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (512, [512]), (513, [512, 1]), (1100, [512, 512, 76])]
)
def test_long_list_is_split_and_joined_in_order(call: Call, count: int, sizes: list[int]) -> None:
    deployment = Deployment()
    texts = [f"text {number}" for number in range(count)]
    found = call(deployment, "embed", texts)
    assert sorted((len(asked["input"]) for asked in deployment.asked), reverse=True) == sizes
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, matrix_of(texts))


def test_large_list_is_split_by_bytes(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BYTES", 1000)
    file = tmp_path / "a.png"
    file.write_bytes(bytes(300))
    photo = base64.b64encode(bytes(300)).decode()
    alone = "a text that is over the bound by itself " * 30
    inputs = [
        Image.from_file(file),
        {"image": Image.from_bytes(bytes(300))},
        {"image": photo},
        alone,
        "x" * 900,
        "ü" * 50,
        Image.from_url("https://example.org/a.png"),
    ]
    sent = [{"image": photo}] * 3 + [alone, "x" * 900, "ü" * 50, {"image": "https://example.org/a.png"}]
    deployment = Deployment()
    found = call(deployment, "embed", inputs)
    np.testing.assert_array_equal(found, matrix_of(sent))
    bodies = [sent[:2], sent[2:3], [alone], ["x" * 900], sent[5:]]
    assert sorted([asked["input"] for asked in deployment.asked], key=str) == sorted(bodies, key=str)


def test_splitting_reads_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [tmp_path / f"{number}.jpg" for number in range(20)]
    for photo in photos:
        photo.touch()
        os.truncate(photo, 10_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", None)
        found = requests.parts([Image.from_file(photo) for photo in photos])
    assert [len(part) for part in found] == [3, 3, 3, 3, 3, 3, 2]
    # Below the server's default limit.
    body = requests.embed_call(found[0]).body
    assert body is not None
    assert len(body) < RouterSettings.model_fields["max_body_bytes"].default
    with pytest.raises(FileNotFoundError):
        requests.parts([Image.from_file(tmp_path / "none.jpg")] * 2)


def test_async_client_limits_concurrency() -> None:
    deployment = Deployment()
    texts = [str(number) for number in range(512 * 9)]
    np.testing.assert_array_equal(async_call(deployment, "embed", texts), matrix_of(texts))
    assert deployment.busiest == 4


async def test_calls_wait_for_a_connection_outside_of_httpx() -> None:
    deployment = Deployment()
    async with deployment.async_client() as client:
        found = await asyncio.gather(*(client.embed(str(number)) for number in range(150)))
    np.testing.assert_array_equal(np.concatenate(found), matrix_of([str(number) for number in range(150)]))
    assert deployment.busiest == 100


def test_first_failure_cancels_the_others() -> None:
    deployment = Deployment(refusal(413, "INPUT_TOO_LARGE"))
    with pytest.raises(TooLarge):
        async_call(deployment, "embed", ["x"] * 512 * 40)
    assert len(deployment.requests) < 40


@pytest.mark.parametrize("place", [0, -1])
async def test_cancelled_request_gives_no_shorter_result(place: int) -> None:
    class Cancelling(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            if "cancelled" in asked["input"]:
                raise asyncio.CancelledError
            return super().embeddings(asked)

    texts = ["a"] * 512 * 3
    texts[place] = "cancelled"
    async with Cancelling().async_client(concurrency=1) as client:
        with pytest.raises(asyncio.CancelledError):
            async with hang_guard():
                await client.embed(texts)


def test_only_given_options_are_sent(call: Call) -> None:
    deployment = Deployment()
    options = {"task": "code.query", "dimensions": 16, "truncate": False, "normalized": False}
    call(deployment, "embed", ["a"], late_chunking=True, priority="bulk", **options)
    call(deployment, "embed", ["a"])
    call(deployment, "embed_multi", ["a"], task="code.passage")
    common = {"input": ["a"], "embedding_type": "base64"}
    assert deployment.asked == [
        {**common, **options, "late_chunking": True},
        common,
        {**common, "task": "code.passage", "return_multivector": True},
    ]
    assert [request.headers.get("x-priority") for request in deployment.requests] == ["bulk", None, None]


def test_every_form_of_input(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG")
    encoded = base64.b64encode(b"\x89PNG").decode()
    deployment = Deployment()
    call(
        deployment,
        "embed",
        [
            "text",
            "data:image/png;base64,AAAA",
            Image.from_file(file),
            Image.from_bytes(b"\x89PNG"),
            Image.from_url("https://example.org/a.png"),
            Image.from_url("\ndata:;base64,AAAA"),
            {"image": Image.from_bytes(b"\x89PNG"), "task": "retrieval.query"},
        ],
    )
    assert deployment.asked[0]["input"] == [
        "text",
        {"text": "data:image/png;base64,AAAA"},
        {"image": encoded},
        {"image": encoded},
        {"image": "https://example.org/a.png"},
        {"image": "data:;base64,AAAA"},
        {"image": encoded, "task": "retrieval.query"},
    ]


def test_lone_surrogates_are_sent_as_fffd(call: Call) -> None:
    deployment = Deployment()
    texts = ["half \ud83d", {"text": "\ude00 half"}, "\ud83d\ude00", "whole \U0001f600"]
    whole = ["half \ufffd", {"text": "\ufffd half"}, "\U0001f600", "whole \U0001f600"]
    np.testing.assert_array_equal(call(deployment, "embed", texts), matrix_of(whole))
    call(deployment, "embed_multi", texts)
    assert [asked["input"] for asked in deployment.asked] == [whole, whole]
    call(deployment, "rerank", texts[0], texts)
    asked = json.loads(deployment.requests[-1].content)
    assert (asked["query"], asked["documents"]) == (whole[0], whole)


def test_pdf_gives_one_row_per_page(call: Call) -> None:
    deployment = Deployment(reply_with(entry(0, [1, 0]), entry(1, [0, 1]), entry(2, [1, 1])))
    assert call(deployment, "embed", {"pdf": "data:application/pdf;base64,AAAA"}).shape == (3, 2)


def test_late_chunking_is_never_split(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BYTES", 1000)
    document = Deployment()
    call(document, "embed", ["x" * 900] * 3, late_chunking=True)
    assert len(document.asked) == 1
    with pytest.raises(ValueError, match="at most 512 inputs"):
        call(Deployment(), "embed", ["x"] * 513, late_chunking=True)


def test_multivectors_give_one_matrix_per_input(call: Call) -> None:
    texts = [str(number) for number in range(600)]
    found = call(Deployment(), "embed_multi", texts)
    assert len(found) == 600
    for number in (0, 1, 511, 512, 599):
        tokens = 2 + number % 512 % 3
        right = np.stack([vector_of([texts[number], token], 128) for token in range(tokens)])
        np.testing.assert_array_equal(found[number], right)


def test_rerank_returns_documents_best_first(call: Call) -> None:
    deployment = Deployment()
    documents = ["a", Image.from_bytes(b"b"), {"text": "c"}]
    # Any iterable will do.
    found = call(deployment, "rerank", "query", iter(documents), top_n=2)
    assert [(one.index, one.relevance_score) for one in found] == [(2, 1.0), (1, 0.9)]
    assert found[0].document is documents[2]
    assert json.loads(deployment.requests[0].content) == {
        "query": "query",
        "documents": ["a", {"image": "Yg=="}, {"text": "c"}],
        "top_n": 2,
        "return_documents": False,
    }


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([[]], ValueError, "inputs is empty"),
        ([["a", 7]], TypeError, r"inputs\[1\].*int"),
        ([b"bytes"], TypeError, "Image.from_bytes"),
        ([7], TypeError, "int"),
        (["query", []], ValueError, "documents is empty"),
        (["query", "a document"], TypeError, "documents: .*not str"),
        (["query", {"text": "a"}], TypeError, "documents: .*not dict"),
        (["query", ["a", 7]], TypeError, r"documents\[1\].*int"),
        ([b"query", ["a"]], TypeError, "query.*bytes"),
    ],
)
def test_invalid_inputs_are_refused(
    call: Call, inputs: list[Any], error: type[Exception], message: str
) -> None:
    deployment = Deployment()
    with pytest.raises(error, match=message):
        call(deployment, "embed" if len(inputs) == 1 else "rerank", *inputs)
    assert deployment.requests == []


def test_thread_of_a_fork_does_not_use_connections_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[httpx.Client] = []
    used: list[httpx.Client] = []

    class Recorded(httpx.Client):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            opened.append(self)
            if len(opened) == 2:
                # As another thread does meanwhile.
                client.models()

        def request(self, *arguments: Any, **options: Any) -> httpx.Response:
            used.append(self)
            return super().request(*arguments, **options)

    monkeypatch.setattr(httpx, "Client", Recorded)
    client = Deployment().client()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    client.models()
    assert len(used) == 2
    assert opened[0] not in used


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}/v1", f"{URL}/v1/"])
def test_base_url_may_end_in_v1(url: str) -> None:
    deployment = Deployment()
    with Client(url, "secret", timeout=7, transport=httpx.MockTransport(deployment.answer)) as client:
        client.embed("a")
    [request] = deployment.requests
    assert str(request.url) == f"{URL}/v1/embeddings"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-request-timeout-seconds"] == "7"
    assert request.headers["content-type"] == "application/json"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        Client("localhost:8080")
    with pytest.raises(ValueError, match="base_url"):
        Client("http://[::1")
    for key in ("", "secret\n", "sec ret", "secr\xe9t"):
        with pytest.raises(ValueError, match="api_key") as refused:
            Client(URL, key)
        assert "sec" not in str(refused.value)
    with pytest.raises(ValueError, match="concurrency"):
        AsyncClient(URL, concurrency=0)
    with pytest.raises(ValueError, match="not an http"):
        Image.from_url("file:///etc/passwd")
    with pytest.raises(TypeError, match="tsk"):
        sync_call(Deployment(), "embed", "a", tsk="code.query")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NO_PROXY", "[::1]"),
        ("HTTP_PROXY", "http://127.0.0.1:port"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_wrong_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[Client | AsyncClient], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ValueError, match="a proxy or certificate file in the environment"):
        kind(URL)


def test_tasks_are_those_of_all_models() -> None:
    assert set(TASKS) == {task for family in FAMILIES for task in family.tasks}
