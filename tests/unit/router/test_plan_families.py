"""Planning for models other than jina-embeddings-v4, and that no item leaves its model's pools."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.catalogs import planned, route
from triptych.router.api.aliases import OLD_MODELS
from triptych.router.errors import Invalid, ModelNotFound
from triptych.workers.shared.contract import Document, Text
from triptych.workers.shared.families import BY_NAME, BY_POOL, FAMILIES, V3, V4, V5_NANO, V5_SMALL, Family

EMBEDDERS = [family for family in FAMILIES if family.tasks]
IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(8)).decode()


def refused(*families: Family, **fields: Any) -> tuple[str, str]:
    """Field and message of the first error."""
    with pytest.raises(Invalid) as caught:
        planned(*families, **fields)
    error = caught.value.errors[0]
    return error["field"], error["message"]


# As in docs/MODELS.md.
ROUTES: list[tuple[Family, str | None, str, str]] = [
    (V3, "retrieval.query", "v3.retrieval-query", "query"),
    (V3, "retrieval.passage", "v3.retrieval-passage", "passage"),
    (V3, "separation", "v3.separation", "plain"),
    (V3, "clustering", "v3.separation", "plain"),
    (V3, "classification", "v3.classification", "plain"),
    (V3, "text-matching", "v3.text-matching", "plain"),
    (V3, None, "v3.base", "plain"),
    (V5_SMALL, "retrieval.query", "v5-small.retrieval", "query"),
    (V5_SMALL, "retrieval.passage", "v5-small.retrieval", "passage"),
    (V5_SMALL, "separation", "v5-small.clustering", "passage"),
    (V5_SMALL, None, "v5-small.text-matching", "passage"),
    (V5_NANO, "clustering", "v5-nano.clustering", "passage"),
    (V5_NANO, "classification", "v5-nano.classification", "passage"),
    (V4, None, "text-matching", "query"),
    (V4, "text-matching", "text-matching", "query"),
    (V4, "retrieval.query", "retrieval", "query"),
    (V4, "retrieval.passage", "retrieval", "passage"),
    (V4, "code.query", "code", "query"),
    (V4, "code.passage", "code", "passage"),
]


@pytest.mark.parametrize(("family", "task", "pool", "role"), ROUTES)
def test_model_and_task_choose_pool_and_role(family: Family, task: str | None, pool: str, role: str) -> None:
    [item] = planned(*EMBEDDERS, input="a", model=family.name, task=task)
    assert route(item) == (pool, role)
    [alone] = planned(family, input="a", task=task)
    assert route(alone) == (pool, role)


@pytest.mark.parametrize(
    ("family", "task"), [(family, task) for family in EMBEDDERS for task in family.tasks]
)
def test_model_name_carries_the_task_of_its_model(family: Family, task: str) -> None:
    for name in family.names:
        [item] = planned(*EMBEDDERS, input="a", model=f"{name}:{task}")
        assert route(item) == family.routes[task]


@pytest.mark.parametrize(
    ("family", "task"),
    [(V3, "code.query"), (V5_SMALL, "code.passage"), (V4, "classification"), (V4, "clustering")],
)
def test_task_of_another_model_is_refused(family: Family, task: str) -> None:
    field, message = refused(*EMBEDDERS, input="a", model=family.name, task=task)
    assert field == "body -> task"
    assert all(repr(known) in message for known in family.tasks)
    field, _ = refused(*EMBEDDERS, input=[{"text": "a", "task": task}], model=family.name)
    assert field == "body -> input -> 0 -> task"


@pytest.mark.parametrize(
    ("family", "fields", "field"),
    [
        (V3, {"input": ["a", {"image": IMAGE}]}, "body -> input -> 1 -> image"),
        (V5_NANO, {"input": {"url": "https://example.org/a.png"}}, "body -> input -> url"),
        (V5_NANO, {"input": {"bytes": IMAGE}}, "body -> input -> bytes"),
        (V3, {"input": f"data:image/png;base64,{IMAGE}"}, "body -> input"),
        (V5_SMALL, {"input": {"pdf": "https://example.org/a.pdf"}}, "body -> input -> pdf"),
        (V3, {"input": "a", "return_multivector": True}, "body -> return_multivector"),
        (V5_SMALL, {"input": ["a"], "late_chunking": True}, "body -> late_chunking"),
        (V5_NANO, {"input": "a", "dimensions": 769}, "body -> dimensions"),
    ],
)
def test_what_a_model_cannot_do_is_refused(family: Family, fields: dict[str, Any], field: str) -> None:
    named, message = refused(V4, family, model=family.name, **fields)
    assert named == field
    assert family.name in message


def test_late_chunking_without_a_task_uses_the_base_of_v3() -> None:
    [item] = planned(V3, input=["a", "b"], late_chunking=True)
    assert item.pool == "v3.base"
    assert item.wire.content == Document(("a", "b"), "plain")


@pytest.mark.parametrize("family", EMBEDDERS)
def test_long_text_costs_the_model_s_context(family: Family) -> None:
    [item] = planned(*EMBEDDERS, input="a" * 500_000, model=family.name)
    assert item.cost == family.positions


@pytest.mark.parametrize(
    ("family", "task", "prompt", "routed"),
    [
        (V4, "retrieval", "query", ("retrieval", "query")),
        (V4, "retrieval", "passage", ("retrieval", "passage")),
        (V4, "code", "passage", ("code", "passage")),
        (V4, "code.query", "query", ("code", "query")),
        (V4, "text-matching", "query", ("text-matching", "query")),
        (V5_SMALL, "retrieval", "document", ("v5-small.retrieval", "passage")),
        (V5_SMALL, "clustering", "document", ("v5-small.clustering", "passage")),
        (V3, "retrieval", "query", ("v3.retrieval-query", "query")),
    ],
)
def test_prompt_name_completes_the_task(
    family: Family, task: str, prompt: str, routed: tuple[str, str]
) -> None:
    [item] = planned(family, input="a", task=task, prompt_name=prompt)
    assert route(item) == routed
    [item] = planned(family, input=[{"text": "a", "task": task}], task=task, prompt_name=prompt)
    assert route(item) == routed


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": "retrieval"}, "body -> task"),
        ({"task": "retrieval.query", "prompt_name": "passage"}, "body -> task"),
        ({"task": "text-matching", "prompt_name": "passage"}, "body -> task"),
        ({"task": "retrieval", "prompt_name": "search"}, "body -> prompt_name"),
        ({"prompt_name": "query"}, "body -> prompt_name"),
    ],
)
def test_prompt_name_that_does_not_fit_is_refused(fields: dict[str, str], field: str) -> None:
    assert refused(V4, input="a", **fields)[0] == field


@pytest.mark.parametrize(
    ("model", "dimensions", "routed"),
    [
        ("jina-embeddings-v2-base-en", 768, ("retrieval", "passage")),
        ("jina-embeddings-v2-base-code", 768, ("code", "passage")),
        ("jina-embeddings-v2-small-en", 512, ("retrieval", "passage")),
        ("jina-embeddings-v3", 1024, ("retrieval", "passage")),
    ],
)
def test_old_names_bring_dimensions_and_task(model: str, dimensions: int, routed: tuple[str, str]) -> None:
    [item] = planned(V4, aliases=OLD_MODELS, input="a", model=model)
    assert (route(item), item.wire.dimensions) == (routed, dimensions)
    [item] = planned(V4, aliases=OLD_MODELS, input="a", model=model, task="code.query", dimensions=64)
    assert (route(item), item.wire.dimensions) == (("code", "query"), 64)
    [item] = planned(V4, aliases=OLD_MODELS, input="a", model=model, return_multivector=True)
    assert item.wire.dimensions is None


@pytest.mark.parametrize("task", ["classification", "separation"])
def test_old_tasks_of_v3_are_known_to_its_alias_alone(task: str) -> None:
    for fields in ({"input": "a", "task": task}, {"input": [{"text": "a", "task": task}]}):
        [item] = planned(V4, aliases=OLD_MODELS, model="jina-embeddings-v3", **fields)
        assert route(item) == ("text-matching", "query")
    with pytest.raises(Invalid):
        planned(V4, aliases=OLD_MODELS, input="a", model="jina-embeddings-v2-base-en", task=task)


NAMES = [name for family in FAMILIES for name in family.names]
TASKS = sorted({task for family in FAMILIES for task in (*family.tasks, *family.other_tasks)})
models = st.sampled_from([*NAMES, *OLD_MODELS, None])
tasks = st.sampled_from([*TASKS, "retrieval", "code", None])
texts = st.text(max_size=5)
inputs = st.one_of(texts, st.fixed_dictionaries({"text": texts, "task": tasks}), st.just({"image": IMAGE}))
requests = st.fixed_dictionaries(
    {
        "input": st.lists(inputs, min_size=1, max_size=4),
        "model": models,
        "task": tasks,
        "prompt_name": st.sampled_from([None, "query", "passage"]),
        "late_chunking": st.booleans(),
    }
)


@given(st.lists(st.sampled_from(FAMILIES), unique=True, min_size=1), requests)
def test_no_item_is_planned_for_another_model(served: list[Family], request: Mapping[str, Any]) -> None:
    try:
        items = planned(*served, aliases=OLD_MODELS, **request)
    except (ModelNotFound, Invalid):
        return
    [family] = {BY_POOL[item.pool] for item in items}
    named = request["model"]
    if named is None:
        assert family is next(one for one in served if one.tasks)
    elif BY_NAME.get(named) in served:
        assert named in family.names
    else:
        assert named in OLD_MODELS
        assert family is V4
    for item in items:
        content = item.wire.content
        if isinstance(content, Text | Document):
            assert (item.pool, content.role) in family.routes.values()
        else:
            assert family.images
