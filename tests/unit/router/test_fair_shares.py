"""Properties of fair sharing: API keys get equal parts of the work, and an idle key always gets in."""

from collections import Counter
from contextlib import suppress
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.router.items import admit, make_request, take_next
from triptych.router.errors import QueueFull
from triptych.router.pool.dispatcher import MAX_RETRIES
from triptych.router.pool.line import QUANTUM
from triptych.router.pool.queue import MARGIN, PoolQueue

BATCH_TOKENS = 2000
TRIES = MAX_RETRIES + 1
# The queue of the tests of admission; 10 items and 100 tokens of it are little.
MAX_TOKENS, MAX_ITEMS = 25_600, 2_560
MOST_KEYS = 30


@settings(max_examples=50, deadline=None)
@given(
    costs=st.lists(st.lists(st.integers(50, 3000), min_size=1, max_size=5), min_size=2, max_size=4),
    batch_items=st.integers(8, 64),
    outcomes=st.lists(st.sampled_from(["done", "failed", "declined"]), min_size=1, max_size=4),
    bulk=st.booleans(),
)
def test_backlogged_keys_get_equal_work(
    costs: list[list[int]], batch_items: int, outcomes: list[str], bulk: bool
) -> None:
    """Whatever the sizes of their items, and whatever becomes of the batches."""
    queue = PoolQueue(10**9, 10**9)
    waiting: Counter[str] = Counter()
    for number, some in enumerate(costs):
        request = make_request(some * (20_000 // sum(some) + 1), bulk=bulk, key=f"{number}")
        admit(queue, request.items)
        waiting[f"{number}"] = len(request.items)
    spent = Counter(dict.fromkeys(waiting, 0))
    largest = max(map(max, costs))
    # A batch that fails is sent again at once, three times in all.
    bound = QUANTUM + 2 * largest + TRIES * max(BATCH_TOKENS, largest)
    for outcome in cycle([*outcomes, "done", "done"]):
        batch = take_next(queue, BATCH_TOKENS, batch_items)
        assert batch is not None
        for item in batch.items:
            batch.remove(item)
            item.tries += outcome == "failed"
            waiting[item.job.key] -= 1
            spent[item.job.key] += item.cost * (outcome != "declined")
        if outcome != "done":
            back = [item for item in batch.items if item.tries < TRIES]
            queue.put_back(back)
            waiting.update(item.job.key for item in back)
        if min(waiting.values()) == 0:
            break
        assert max(spent.values()) - min(spent.values()) <= bound


@settings(max_examples=50, deadline=None)
@given(
    floods=st.lists(
        st.tuples(
            st.integers(1, MOST_KEYS), st.integers(1, 200), st.integers(1, 100), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=30,
    ),
    cost=st.integers(1, 100),
    bulk=st.booleans(),
)
def test_idle_key_is_admitted_during_floods(
    floods: list[tuple[int, int, int, bool, bool]], cost: int, bulk: bool
) -> None:
    queue = PoolQueue(MAX_TOKENS, MAX_ITEMS)
    for key, items, each, flood_is_bulk, drains in floods:
        with suppress(QueueFull):
            for _ in range(20):
                admit(queue, make_request([each] * items, bulk=flood_is_bulk, key=f"{key}").items)
        assert queue.items <= MAX_ITEMS
        assert queue.tokens <= MAX_TOKENS
        queue.check_room(make_request([cost], bulk=bulk, key="idle").items, 0.0)
        queue.check_any_room("retrieval", 0.0, key="idle")
        if drains:
            take_next(queue, 4096, 256)


def test_greedy_keys_get_equal_room() -> None:
    queue = PoolQueue(10**9, MAX_ITEMS)
    waiting: Counter[str] = Counter()
    for number in range(5000):
        key = "abc"[number % 3]
        with suppress(QueueFull):
            admit(queue, make_request([1] * 4, key=key).items)
            waiting[key] += 4
    assert max(waiting.values()) - min(waiting.values()) <= 4
    assert 0.7 * MAX_ITEMS < waiting.total() < 0.8 * MAX_ITEMS


def test_small_request_is_next_but_one_turn() -> None:
    queue = PoolQueue(10**9, 10**9)
    for key in ("a", "b"):
        admit(queue, make_request([100] * 1000, key=key).items)
    query = make_request([10], key="c")
    admit(queue, query.items)
    sent = 0
    while query.items[0] in queue.waiting():
        batch = take_next(queue, 100, 100)
        assert batch is not None
        sent += batch.tokens
    assert sent <= 2 * QUANTUM + 10


def test_wait_is_that_of_the_key() -> None:
    """Another key's backlog is ahead only as far as that key has its turn first."""
    queue, now = PoolQueue(10**6, 10**6), 0.0
    admit(queue, make_request([100] * 1000, key="busy").items)
    for item in make_request([100] * 50).items:
        now += 0.1
        queue.drained(item, now)
    hurried = now + MARGIN * (QUANTUM + 1000) / 1000
    queue.check_room(make_request([10], key="idle").items, now, hurried)
    with pytest.raises(QueueFull) as refused:
        queue.check_room(make_request([10], key="busy").items, now, hurried)
    assert refused.value.retry_after == 50
    with pytest.raises(QueueFull) as refused:
        queue.check_room(make_request([10], key="idle").items, now, now + 0.1)
    assert refused.value.retry_after == 1
