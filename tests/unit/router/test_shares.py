"""How much of what waits a replica is given."""

import pytest

from router.pool.replica import Replica
from router.pool.shares import SMALLEST_SHARE_TOKENS, share_of, takes_bulk
from tests.unit.router.apps import Workers

FIXED, PER_TOKEN = 0.01, 20e-6
NEARLY_FREE = FIXED / PER_TOKEN


def replica(lanes: int = 4, *, known: bool = True) -> Replica:
    """One whose batches take `FIXED` seconds and `PER_TOKEN` for each token, as it knows or does not."""
    made = Replica("127.0.0.1:1", "retrieval", lanes, Workers())
    for number in range(50 if known else 0):
        tokens = (20, 400, 60)[number % 3]
        made.pace.observe(tokens, FIXED + PER_TOKEN * tokens)
    return made


@pytest.mark.parametrize(("lanes", "in_use", "beside_queries", "may"), [
    (4, 2, False, True), (4, 3, False, False), (4, 0, True, True), (4, 1, True, False),
    (1, 0, False, True), (1, 0, True, True), (1, 1, False, False),
])  # fmt: skip
def test_one_lane_is_kept_for_queries_and_all_but_one_while_they_come(
    lanes: int, in_use: int, beside_queries: bool, may: bool
) -> None:
    busy = replica(lanes)
    busy.bulk_lanes_in_use = in_use
    assert takes_bulk(busy, beside_queries=beside_queries) is may


def test_a_batch_is_half_of_what_falls_to_the_replica_with_what_it_has() -> None:
    one, other = replica(), replica()
    assert share_of(6000, one, [one], beside_queries=False) == 3000
    assert share_of(6000, one, [one, other], beside_queries=False) == 1500
    one.tokens_in_flight = 3000
    assert share_of(3000, one, [one], beside_queries=False) == 3000


def test_a_batch_is_not_made_smaller_than_what_is_nearly_free() -> None:
    one = replica()
    assert share_of(600, one, [one], beside_queries=False) == pytest.approx(NEARLY_FREE, rel=0.02)
    one = replica(known=False)
    assert share_of(600, one, [one], beside_queries=False) >= 600


def test_beside_queries_bulk_is_given_no_more_than_that() -> None:
    one = replica()
    assert share_of(60_000, one, [one], beside_queries=True) == pytest.approx(NEARLY_FREE, rel=0.02)


def test_no_share_is_so_small_that_the_call_costs_more() -> None:
    one = replica(known=False)
    for tokens in (20, 400, 60):
        one.pace.observe(tokens, 1e-6 * tokens)
    assert share_of(100, one, [one], beside_queries=True) == SMALLEST_SHARE_TOKENS
