"""Catalogs for tests that need no fleet."""

from triptych.router.api import schema
from triptych.router.api.aliases import NO_ALIASES, Aliases
from triptych.router.api.catalog import Catalog
from triptych.router.pool.served import Served
from triptych.workers.shared.families import V4, Family


def catalog(*families: Family, aliases: Aliases = NO_ALIASES) -> Catalog:
    """The catalog of a router that serves `families`, the first by default."""
    return Catalog({family: Served(family) for family in families}, aliases)


V4_ONLY = catalog(V4)


def parse_request(body: bytes, models: Catalog = V4_ONLY, max_items: int = 512) -> schema.EmbeddingRequest:
    """Parse a request to a router that serves v4, unless `models` says otherwise."""
    return schema.parse_request(body, models, max_items)
