"""Which model a request chooses."""

from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from tests.unit.router.catalogs import catalog
from triptych.router.api.aliases import OLD_MODELS, Alias
from triptych.router.errors import ModelNotFound
from triptych.workers.shared.families import (
    BY_NAME,
    RERANKER_M0,
    RERANKER_V2,
    V3,
    V4,
    V5_NANO,
    V5_SMALL,
    Family,
)


@pytest.mark.parametrize(
    "name",
    [
        *BY_NAME,
        *("", "gpt-4", "JINA-EMBEDDINGS-V4", "other:code.query", "jina-embeddings-v4:"),
        *("jina-embeddings-v4:retrieval", "jina-embeddings-v4:code.query:code.query"),
    ],
)
def test_model_that_is_not_deployed_is_refused_with_those_that_are(name: str) -> None:
    served = catalog(*(family for family in (V4, V5_NANO) if name not in family.names))
    with pytest.raises(ModelNotFound) as caught:
        served.embedding(name)
    assert name in caught.value.detail
    others = [family for family in (V4, V5_NANO) if name not in family.names]
    assert all(other in caught.value.detail for family in others for other in family.names)


def test_reranker_does_not_embed() -> None:
    served = catalog(V5_SMALL, RERANKER_V2)
    with pytest.raises(ModelNotFound, match=V5_SMALL.name) as caught:
        served.embedding(RERANKER_V2.name)
    assert RERANKER_V2.name not in caught.value.detail.partition(";")[2]
    with pytest.raises(ModelNotFound, match="no model that can do this"):
        catalog(RERANKER_V2).embedding(None)


@pytest.mark.parametrize(
    ("families", "model", "expected"),
    [
        ((V4,), None, V4),
        ((V4, RERANKER_V2), None, RERANKER_V2),
        ((V5_SMALL, V4), None, V4),
        ((V4, RERANKER_V2), V4.name, V4),
        ((V4, RERANKER_V2), f"jinaai/{V4.name}:retrieval.query", V4),
        ((V4, RERANKER_V2), "any-cross-encoder", RERANKER_V2),
        ((V4, RERANKER_M0, RERANKER_V2), RERANKER_M0.name, RERANKER_M0),
        ((V5_SMALL,), None, None),
        ((V5_SMALL, V4), V5_SMALL.name, None),
        ((V4,), "any-cross-encoder", None),
        ((V4, RERANKER_M0), "any-cross-encoder", None),
        # A name that another family has is not any name.
        ((V4, RERANKER_V2), RERANKER_M0.name, None),
        ((V4, RERANKER_V2), V5_SMALL.name, None),
    ],
)
def test_model_chooses_the_ranker(
    families: tuple[Family, ...], model: str | None, expected: Family | None
) -> None:
    with pytest.raises(ModelNotFound) if expected is None else nullcontext():
        assert catalog(*families).ranking(model).family is expected


def test_any_name_is_the_name_in_the_reply() -> None:
    served = catalog(V4, RERANKER_V2)
    assert served.ranking("any-cross-encoder").model == "any-cross-encoder"
    assert served.ranking(f"jinaai/{V4.name}").model == V4.name
    assert served.ranking(None).model == RERANKER_V2.name


def test_all_models_are_accepted_while_no_pool_is_known() -> None:
    unknown = catalog()
    assert unknown.embedding(None).family is V4
    assert unknown.embedding(V3.name).family is V3


def test_alias_of_a_model_that_is_not_deployed_is_refused() -> None:
    aliases = {"mine": Alias(model=V3.name), "yours": Alias(model=V4.name)}
    with pytest.raises(ModelNotFound, match="yours") as caught:
        catalog(V4, aliases=aliases).embedding("mine")
    assert "mine" not in caught.value.detail.partition(";")[2]


def test_deployed_model_goes_before_an_old_name() -> None:
    old = catalog(V4, aliases=OLD_MODELS).embedding(V3.name)
    assert (old.family, old.dimensions, old.task) == (V4, 1024, "retrieval.passage")
    real = catalog(V4, V3, aliases=OLD_MODELS).embedding(V3.name)
    assert (real.family, real.dimensions, real.task) == (V3, None, None)


@pytest.mark.parametrize("task", V3.tasks)
def test_old_name_takes_every_task_of_v3(task: str) -> None:
    alias = OLD_MODELS[V3.name]
    assert alias.tasks.get(task, task) in V4.tasks


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "gpt"}, "no model 'gpt'; the models are jina-embeddings-v4"),
        ({"task": "classification"}, "has no task 'classification'; it has text-matching"),
        ({"tasks": {"x": "y"}}, "has no task 'y'"),
        ({"model": RERANKER_V2.name, "task": "text-matching"}, "it has no tasks"),
        ({"model": V5_NANO.name, "dimensions": 1024}, "jina-embeddings-v5-text-nano has 768"),
        ({"dimensions": 0}, "greater than or equal to 1"),
        (
            {"classification": "text-matching"},
            "an alias has model, task, tasks, dimensions, not classification",
        ),
    ],
)
def test_wrong_aliases_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Alias.model_validate(fields)
