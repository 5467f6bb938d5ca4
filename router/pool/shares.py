"""How much of what waits a replica is given at a time, and by which class (pure)."""

import math
import sys
from collections.abc import Sequence

from router.pool.replica import Replica

# Spreading work over batches smaller than this costs more than it gains, whatever the engine.
SMALLEST_SHARE_TOKENS = 256


def takes_bulk(replica: Replica, *, beside_queries: bool) -> bool:
    """Whether bulk may have a free lane of `replica`: one of several is always kept for queries.

    A query waits at least for the engine step that is under way. So while there are queries, bulk work has
    one lane. A second would keep the engine busy between two batches, which is a fifth of the bulk rate with
    the tiny model on a CPU and less where steps take longer; but queries would wait for two batches.
    """
    return replica.bulk_lanes_in_use < (1 if beside_queries else max(1, replica.lanes - 1))


def share_of(waiting: int, replica: Replica, able: Sequence[Replica], *, beside_queries: bool) -> int:
    """Tokens of the next batch, of `waiting` ones; `replica` gets it, of those that are `able` to.

    Half of what falls to each of them, with what they have: while the engine works on the one half, the
    router and the worker's front-end work on the other. No less than what hardly makes a batch slower, and
    for bulk `beside_queries`, which wait for it, no more.
    """
    nearly_free = max(replica.pace.tokens_until_twice(), SMALLEST_SHARE_TOKENS)
    there = waiting + sum(other.tokens_in_flight for other in able)
    share = max(math.ceil(there / (2 * len(able))), nearly_free)
    return int(min(nearly_free if beside_queries else share, sys.maxsize))
