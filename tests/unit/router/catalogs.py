"""Catalogs and plans for tests that need no fleet."""

import json
from typing import Any

from triptych.router.api import schema
from triptych.router.api.aliases import Aliases
from triptych.router.api.catalog import Catalog
from triptych.router.api.plan import plan
from triptych.router.items import Item, Priority
from triptych.router.pool.served import Served
from triptych.router.settings import RouterSettings
from triptych.workers.shared.contract import Text
from triptych.workers.shared.families import V4, Family


def catalog(*families: Family, aliases: Aliases | None = None) -> Catalog:
    """The catalog of a router that serves `families`, the first by default."""
    return Catalog({family: Served(family) for family in families}, aliases or {})


V4_ONLY = catalog(V4)
SETTINGS = RouterSettings.model_construct(max_image_bytes=100, max_pdf_bytes=200)


def parse_request(body: bytes, models: Catalog = V4_ONLY, max_items: int = 512) -> schema.EmbeddingRequest:
    """Parse a request to a router that serves v4, unless `models` says otherwise."""
    return schema.parse_request(body, models, max_items)


def planned(
    *families: Family, aliases: Aliases | None = None, priority: Priority | None = None, **fields: Any
) -> list[Item]:
    """The items of a request to a router that serves `families`, by default v4."""
    models = catalog(*families, aliases=aliases) if families else V4_ONLY
    return plan(parse_request(json.dumps(fields).encode(), models), models, SETTINGS, priority)


def route(item: Item) -> tuple[str, str]:
    """The pool and the role of a text."""
    assert isinstance(item.wire.content, Text)
    return item.pool, item.wire.content.role
