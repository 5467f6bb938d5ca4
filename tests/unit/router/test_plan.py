"""Planning: the pool, role, priority, cost and content of each item of a request."""

import base64
import json
from typing import Any

import pytest

from tests.unit.router.catalogs import SETTINGS, planned, route
from triptych.router.api.plan import PDF_TOKENS, SMALL_ITEMS, SMALL_TOKENS
from triptych.router.api.rerank import parse_rerank, plan_rerank
from triptych.router.errors import Invalid, MediaInvalid, TooLarge
from triptych.router.items import Priority
from triptych.router.media.formats import MAX_IMAGE_TOKENS, PROMPT_TOKENS, Media
from triptych.router.pool.served import Served
from triptych.workers.shared import contract
from triptych.workers.shared.contract import Image, Text
from triptych.workers.shared.families import V4

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (56).to_bytes(4, "big") + (84).to_bytes(4, "big")
IMAGE = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{IMAGE}"


def test_item_task_overrides_the_request() -> None:
    items = planned(input=["a", {"text": "b", "task": "code.query"}], task="retrieval.passage")
    assert [route(item) for item in items] == [("retrieval", "passage"), ("code", "query")]


def test_task_field_overrides_the_model_name() -> None:
    [item] = planned(input="a", model="jina-embeddings-v4:code.query", task="retrieval.passage")
    assert route(item) == ("retrieval", "passage")


def test_options_reach_every_item() -> None:
    options = {"dimensions": 64, "truncate": True, "normalized": False}
    for item in planned(input=["a", {"image": IMAGE}], **options):
        assert item.wire == contract.Item(item.wire.content, **options)
    [item] = planned(input="a", return_multivector=True)
    assert item.wire == contract.Item(Text("a", "query"), multivector=True)


def test_items_have_index_and_field() -> None:
    items = planned(input=["a", {"text": "b"}, URI])
    assert [item.index for item in items] == [0, 1, 2]
    assert [item.field for item in items] == [f"body -> input -> {index}" for index in range(3)]
    assert planned(input={"text": "a"})[0].field == "body -> input"


@pytest.mark.parametrize(
    "value",
    [
        {"image": IMAGE},
        {"image": URI},
        {"image": URI.replace("png", "PNG").replace("data", "DATA")},
        {"image": f"data:image/svg+xml;charset=utf-8;base64,{IMAGE}"},
        {"url": URI},
        {"bytes": f"\r\n\t {IMAGE}"},
        {"image": f"\r\n\t data:;base64,{IMAGE}"},
        URI,
        f"data:image/png; charset=utf-8;base64,{IMAGE}",
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_image_bytes_are_unchanged(value: str | dict[str, str], listed: bool) -> None:
    [item] = planned(input=[value] if listed else value, task="retrieval.passage")
    assert item.wire.content == Image(PNG)
    assert item.pool == "retrieval"
    # Queries of rankings have no `url` and no `bytes`.
    if "image" in value:
        ranked = json.dumps({"query": value, "documents": ["a"]}).encode()
        query, _ = plan_rerank(parse_rerank(ranked, 9), SETTINGS, Served(V4), None)
        assert query.wire.content == Image(PNG)


def test_space_around_url_is_skipped() -> None:
    before = "\r\n\t "
    for form, kind in (("image", "image"), ("url", "image"), ("pdf", "pdf")):
        [item] = planned(input={form: f"{before}http://example.org/a\n"})
        assert item.media == Media(kind, "http://example.org/a")  # type: ignore[arg-type]
    [item] = planned(input={"pdf": before + base64.b64encode(b"%PDF-1.7").decode()})
    assert item.media == Media("pdf", b"%PDF-1.7")


@pytest.mark.parametrize(
    "text",
    [
        "data: what is it?",
        "data:image/png",
        "data:image/png;base64; then a comma, and base64,",
        "data:text/plain;base64,YQ==",
        f"data:;base64,{IMAGE}",
        f"data:application/octet-stream;base64,{IMAGE}",
        f" {URI}",
        "see data:image/",
        "https://example.org/a.png",
    ],
)
def test_text_like_a_uri_stays_text(text: str) -> None:
    [item] = planned(input=text)
    assert item.wire.content == Text(text, "query")


@pytest.mark.parametrize(
    ("form", "value"),
    [
        *(
            (form, value)
            for form in ("image", "url", "bytes")
            for value in (
                "",
                "not base64!",
                "JVBERi0xLjc=",
                "data:text/plain;base64,YQ==",
                "file:///etc/passwd",
            )
        ),
        ("bytes", "https://example.org/a.png"),
    ],
)
def test_invalid_image_names_its_field(form: str, value: str) -> None:
    with pytest.raises(MediaInvalid) as caught:
        planned(input=["a", {form: value}])
    assert caught.value.detail.startswith(f"body -> input -> 1 -> {form}: ")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": ["a", {"image": IMAGE}]}, "body -> input -> 1"),
        ({"input": ["a", URI]}, "body -> input -> 1"),
        ({"input": {"pdf": "JVBERi0="}}, "body -> input"),
        ({"input": ["a", {"text": "b", "task": "code.query"}]}, "body -> input -> 1 -> task"),
        ({"input": ["", "b"]}, "body -> input -> 0"),
        ({"input": ["a", {"text": "\n\t \u3000"}]}, "body -> input -> 1 -> text"),
        ({"input": " "}, "body -> input"),
    ],
)
def test_invalid_document_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        planned(task="retrieval.passage", late_chunking=True, **fields)
    assert [fault["field"] for fault in caught.value.errors] == [field]


@pytest.mark.parametrize("form", ["image", "url"])
@pytest.mark.parametrize("address", ["http://example.org/a.png", "HTTPS://EXAMPLE.ORG"])
def test_image_url_is_left_to_fetch(form: str, address: str) -> None:
    _, item = planned(input=["a", {form: address, "task": "code.passage"}], dimensions=64)
    assert item.media == Media("image", address)
    assert (item.index, item.field, item.pool) == (1, f"body -> input -> 1 -> {form}", "code")
    assert item.cost == MAX_IMAGE_TOKENS + PROMPT_TOKENS
    assert item.wire.dimensions == 64


PDF = b"%PDF-1.7 and so on"


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    ("sent", "media"),
    [
        ("https://example.org/a.pdf", Media("pdf", "https://example.org/a.pdf")),
        (base64.b64encode(PDF).decode(), Media("pdf", PDF)),
        ("data:application/pdf;base64," + base64.b64encode(PDF).decode(), Media("pdf", PDF)),
    ],
)
def test_pdf_is_left_to_render(listed: bool, sent: str, media: Media) -> None:
    value = {"pdf": sent}
    [item] = planned(input=[value] if listed else value, task="retrieval.passage")
    assert item.media == media
    assert item.field == ("body -> input -> 0 -> pdf" if listed else "body -> input -> pdf")
    # The number of pages is not known yet.
    assert item.cost == PDF_TOKENS
    assert item.priority is Priority.BULK
    assert planned(input=value, priority=Priority.INTERACTIVE)[0].priority is Priority.INTERACTIVE


def test_pdf_among_others_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        planned(input=["a", {"pdf": base64.b64encode(b"%PDF-1.7").decode()}])
    [error] = caught.value.errors
    assert (error["field"], error["type"]) == ("body -> input -> 1 -> pdf", "pdf_alone")


def test_pdf_size_is_bounded() -> None:
    def sent(size: int) -> dict[str, str]:
        return {"pdf": base64.b64encode(PDF + bytes(size - len(PDF))).decode()}

    planned(input=sent(SETTINGS.max_pdf_bytes))
    with pytest.raises(TooLarge, match="body -> input -> pdf: the PDF"):
        planned(input=sent(SETTINGS.max_pdf_bytes + 1))
    with pytest.raises(MediaInvalid, match="body -> input -> pdf: not a PDF"):
        planned(input={"pdf": IMAGE})


def test_text_cost_grows_up_to_the_context() -> None:
    costs = [planned(input="a" * size)[0].cost for size in (0, 40, 400, 10_000_000)]
    assert costs == sorted(costs)
    assert costs[0] >= 1
    assert costs[-1] == V4.positions
    assert planned(input="\N{CJK UNIFIED IDEOGRAPH-6D77}" * 400)[0].cost > costs[2]


def priorities(**fields: Any) -> list[bool]:
    return [item.priority for item in planned(**fields)]


MANY = ["a"] * (SMALL_ITEMS + 1)
LONG = "a" * 4 * (SMALL_TOKENS + 1)


@pytest.mark.parametrize("task", V4.tasks)
def test_small_request_is_interactive(task: str) -> None:
    assert priorities(input=["a"] * SMALL_ITEMS, task=task) == [False] * SMALL_ITEMS


@pytest.mark.parametrize("task", V4.tasks)
@pytest.mark.parametrize("large", [MANY, [LONG]], ids=["many", "long"])
def test_large_request_is_bulk_except_queries(task: str, large: list[str]) -> None:
    is_query = task in ("retrieval.query", "code.query")
    assert priorities(input=large, task=task) == [not is_query] * len(large)


def test_query_among_passages_is_interactive() -> None:
    found = priorities(input=[*MANY, {"text": "q", "task": "retrieval.query"}], task="retrieval.passage")
    assert found == [True] * len(MANY) + [False]


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("task", ["retrieval.query", "retrieval.passage"])
def test_priority_header_overrides(priority: Priority, task: str) -> None:
    assert priorities(input=MANY, task=task, priority=priority) == [priority] * len(MANY)
    assert priorities(input="a", task=task, priority=priority) == [priority]
