"""Rules of the queue that its property tests do not hold: queries, priorities, and refusals by time."""

import pytest

from tests.unit.router.items import admit, make_request, ranked, take_next, vector
from triptych.router.errors import QueueFull
from triptych.router.items import Item, Job, Priority, Query
from triptych.router.pool.line import MAX_BATCH_BYTES
from triptych.router.pool.queue import PoolQueue
from triptych.workers.shared import contract


def queue_of(*jobs: Job, max_tokens: int = 1000, max_items: int = 1000) -> PoolQueue:
    queue = PoolQueue(max_tokens, max_items)
    for job in jobs:
        admit(queue, job.items)
    return queue


def taken(queue: PoolQueue, max_tokens: int = 1000, max_items: int = 1000) -> list[Item]:
    batch = take_next(queue, max_tokens, max_items)
    return batch.items if batch else []


def image(percent: int) -> contract.Image:
    """An image with such a part of the most bytes of a batch."""
    return contract.Image(bytes(MAX_BATCH_BYTES * percent // 100))


def test_batch_is_bounded_in_bytes() -> None:
    """Images cost tokens by their pixels, not by their bytes."""
    request = make_request([1] * 5)
    for item, percent in zip(request.items, [60, 40, 1, 200, 1], strict=True):
        item.wire = contract.Item(image(percent))
    queue = queue_of(request)
    assert [len(taken(queue)) for _ in range(4)] == [2, 1, 1, 1]


def test_query_is_sent_once_per_batch() -> None:
    """And its tokens come on top of the batch's limit."""
    one, two = (
        Query(contract.Text("one", "query"), 500, "body -> query"),
        Query(contract.Text("two", "query"), 3, "body -> query"),
    )
    first, second, plain = make_request([4, 4]), make_request([4, 4]), make_request([4])
    ranked(one, first.items)
    ranked(two, second.items)
    queue = queue_of(first, second, plain)
    batch = take_next(queue, 20, 100)
    assert batch is not None
    assert batch.tokens == 5 * 4 + 500 + 3
    sent = batch.request()
    assert sent.queries == [one.content, two.content]
    assert [item.against for item in sent.items] == [0, 0, 1, 1, None]
    assert contract.decode_request(contract.encode_request(sent)) == sent


def test_query_bytes_count_once() -> None:
    request = make_request([1] * 30)
    for item in request.items:
        item.wire = contract.Item(image(1))
    ranked(Query(image(90), 16, "body -> query"), request.items)
    queue = queue_of(request)
    assert [len(taken(queue)) for _ in range(3)] == [10, 10, 10]


def test_query_tokens_count_once_on_admission() -> None:
    request, other = make_request([10] * 3), make_request([1])
    ranked(Query(contract.Text("q", "query"), 50, "body -> query"), request.items)
    queue = PoolQueue(80, 10)
    admit(queue, other.items)
    with pytest.raises(QueueFull):
        queue.check_room(request.items, 0.0)
    ranked(Query(contract.Text("q", "query"), 49, "body -> query"), request.items)
    queue.check_room(request.items, 0.0)


def test_absent_bulk_earns_no_share() -> None:
    queue = PoolQueue(10**6, 10**6)
    for _ in range(100):
        admit(queue, make_request([10]).items)
        taken(queue, max_tokens=10)
    admit(queue, make_request([10], bulk=True).items)
    admit(queue, make_request([10]).items)
    assert [item.priority for item in taken(queue, max_tokens=10)] == [Priority.INTERACTIVE]


def test_untried_skips_failed_items() -> None:
    request = make_request([1] * 5)
    queue = queue_of(request)
    request.items[0].tries = request.items[2].tries = 1
    batch = queue.take(10, 2, Priority.INTERACTIVE, untried=True)
    assert batch is not None
    assert batch.items == [request.items[1], request.items[3]]
    assert queue.waiting() == [request.items[0], request.items[2], request.items[4]]
    queue.take(10, 2, Priority.INTERACTIVE, untried=True)
    assert queue.take(10, 2, Priority.INTERACTIVE, untried=True) is None
    assert taken(queue) == [request.items[0], request.items[2]]


def test_unwanted_batch_is_aborted_once() -> None:
    request = make_request([1, 1, 1])
    batch = take_next(queue_of(request), 10, 10)
    assert batch is not None
    ended: list[int] = []
    batch.abort = lambda: ended.append(1)
    batch.remove(request.items[0])
    batch.remove(request.items[1], unwanted=True)
    assert ended == []
    batch.remove(request.items[2], unwanted=True)
    assert ended == [1]


def test_second_result_is_a_bug() -> None:
    request = make_request([1, 1])
    request.resolve(request.items[0], vector(request.items[0]), 1.0)
    with pytest.raises(RuntimeError, match="bug"):
        request.resolve(request.items[0], vector(request.items[0]), 1.0)


def test_query_that_goes_next_is_admitted_beside_slow_bulk() -> None:
    """Without progress for seconds the drain rate falls towards zero, but a lane is kept for queries."""
    queue = queue_of(make_request([100] * 12, bulk=True))
    for number, item in enumerate(taken(queue, max_items=8), 1):
        queue.drained(item, number / 10)
    now, deadline = 20.0, 80.0
    queue.check_room(make_request([10]).items, now, deadline, in_flight=4000)
    queue.check_any_room("retrieval", now, deadline, in_flight=4000)
    with pytest.raises(QueueFull):
        queue.check_room(make_request([10], bulk=True).items, now, deadline, in_flight=4000)
    admit(queue, make_request([10]).items, now)
    with pytest.raises(QueueFull):
        queue.check_room(make_request([10]).items, now, deadline, in_flight=4000)


def test_check_any_room_uses_the_shorter_wait() -> None:
    queue, now = queue_of(make_request([100] * 12)), 0.0
    for item in taken(queue, max_items=8):
        now += 0.1
        queue.drained(item, now)
    # Interactive items wait for 400 tokens at 1,000 a second; bulk has a share of its own.
    with pytest.raises(QueueFull):
        queue.check_room(make_request([1]).items, now, now + 0.5)
    queue.check_room(make_request([1], bulk=True).items, now, now + 0.5)
    queue.check_any_room("retrieval", now, now + 0.5)
    admit(queue, make_request([100] * 4, bulk=True).items)
    # Each has only its share of the rate now: 400 tokens take as long as 500, or as all 800.
    with pytest.raises(QueueFull):
        queue.check_any_room("retrieval", now, now + 0.9)
