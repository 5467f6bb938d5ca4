"""`GET /v1/models`: the served models, in OpenAI's format."""

from typing import Any

from triptych.router.api.plan import MODEL, MODELS, ROUTES, models
from triptych.router.api.schema import Aliases
from triptych.router.errors import NotFound
from triptych.router.pool.fleet import Fleet


def model_list(fleet: Fleet) -> dict[str, Any]:
    """The list of models; it has one entry."""
    return {"object": "list", "data": [_entry(MODEL, fleet)]}


def model(name: str, fleet: Fleet, aliases: Aliases) -> dict[str, Any]:
    """One model, by any name that requests may use. Raises `NotFound`."""
    if name not in models() and name not in aliases:
        raise NotFound(f"no model {name[:100]!r}; there are {', '.join([*MODELS, *aliases])}")
    return _entry(name, fleet)


def _entry(name: str, fleet: Fleet) -> dict[str, Any]:
    info = fleet.info
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "jinaai",
        "tasks": [task for task, (pool, _) in ROUTES.items() if pool in fleet.pools],
        "dimensions": info.dimensions if info else None,
        "max_tokens": info.max_tokens if info else None,
        "vector_spaces": fleet.spaces,
    }
