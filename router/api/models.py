"""`GET /v1/models`: the served models, in OpenAI's format."""

from typing import Any

from triptych.router.api.aliases import Aliases
from triptych.router.api.catalog import Catalog
from triptych.router.errors import ModelNotFound, NotFound
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.served import Served


def model_list(fleet: Fleet) -> dict[str, Any]:
    """The deployed models, the default one first."""
    return {
        "object": "list",
        "data": [_entry(served.family.name, served, fleet) for served in fleet.served.values()],
    }


def model(name: str, fleet: Fleet, aliases: Aliases) -> dict[str, Any]:
    """One model, by any name that requests may use. Raises `NotFound`."""
    try:
        choice = Catalog(fleet.served, aliases).find(name)
    except ModelNotFound as error:
        raise NotFound(error.detail) from None
    entry = _entry(name, choice.served, fleet)
    return entry if choice.dimensions is None else entry | {"dimensions": choice.dimensions}


def _entry(name: str, served: Served, fleet: Fleet) -> dict[str, Any]:
    family, info = served.family, served.info
    pools = {task: pool for task, (pool, _) in family.routes.items() if task}
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "jinaai",
        "tasks": [task for task, pool in pools.items() if pool in fleet.serving],
        "dimensions": info.dimensions if info and family.tasks else None,
        "matryoshka_dimensions": list(family.matryoshka),
        "max_tokens": info.max_tokens if info else None,
        "vector_spaces": {pool: spaces for pool, spaces in fleet.spaces.items() if pool in family.pools},
    }
