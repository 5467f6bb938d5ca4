"""What waits for a pool, and what goes next: one rule at a time."""

import pytest

from router.errors import QueueFull
from router.items import Item, ItemState, Job, Priority, Query
from router.pool import queue as queue_module
from router.pool.queue import TRIES_BEFORE_ALONE, PoolQueue
from tests.unit.router.items import admit, make_request, ranked, take_next, vector
from workers.shared import contract


def queue_of(*jobs: Job, max_tokens: int = 1000, max_items: int = 1000) -> PoolQueue:
    queue = PoolQueue(max_tokens, max_items)
    for job in jobs:
        admit(queue, job.items)
    return queue


def taken(queue: PoolQueue, max_tokens: int = 1000, max_items: int = 1000, now: float = 0.0) -> list[Item]:
    batch = take_next(queue, max_tokens, max_items, now).batch
    return batch.items if batch else []


def test_an_empty_queue_gives_nothing() -> None:
    assert take_next(queue_of(), 10, 10, 0.0) == (None, [])


def test_items_leave_in_the_order_they_came() -> None:
    one, two = make_request([1, 1]), make_request([1])
    assert taken(queue_of(one, two)) == [*one.items, *two.items]


def test_a_batch_is_filled_up_to_its_tokens() -> None:
    request = make_request([4, 3, 3, 1])
    queue = queue_of(request)
    assert taken(queue, max_tokens=10) == request.items[:3]
    assert taken(queue, max_tokens=10) == request.items[3:]


def test_a_batch_is_filled_up_to_its_items() -> None:
    request = make_request([1] * 5)
    queue = queue_of(request)
    assert taken(queue, max_items=2) == request.items[:2]
    assert (queue.items, queue.tokens) == (3, 3)


def test_an_item_larger_than_a_batch_goes_alone() -> None:
    request = make_request([50, 1, 50])
    queue = queue_of(request)
    assert [taken(queue, max_tokens=10) for _ in range(3)] == [[item] for item in request.items]


def test_an_item_that_does_not_fit_is_not_overtaken() -> None:
    request = make_request([6, 6, 1])
    queue = queue_of(request)
    assert taken(queue, max_tokens=10) == request.items[:1]
    assert taken(queue, max_tokens=10) == request.items[1:]


def test_a_batch_is_filled_up_to_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image costs tokens by its pixels; many of few may be far more than a worker takes at once."""
    monkeypatch.setattr(queue_module, "MAX_BATCH_BYTES", 100)
    request = make_request([1] * 5)
    for item, size in zip(request.items, [60, 40, 1, 200, 1], strict=True):
        item.wire = contract.Item(contract.Image(bytes(size)))
    queue = queue_of(request)
    assert [len(taken(queue)) for _ in range(4)] == [2, 1, 1, 1]


def test_a_query_is_sent_once_a_batch_and_comes_on_top_of_its_tokens() -> None:
    """However long it is: it would otherwise be read again with every document."""
    one, two = Query(contract.Text("one", "query"), 500), Query(contract.Text("two", "query"), 3)
    first, second, plain = make_request([4, 4]), make_request([4, 4]), make_request([4])
    ranked(one, first.items)
    ranked(two, second.items)
    queue = queue_of(first, second, plain)
    batch = take_next(queue, 20, 100).batch
    assert batch is not None
    assert batch.tokens == 5 * 4 + 500 + 3
    sent = batch.request()
    assert sent.queries == [one.content, two.content]
    assert [item.against for item in sent.items] == [0, 0, 1, 1, None]
    assert contract.decode_request(contract.encode_request(sent)) == sent


def test_the_bytes_of_a_query_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MAX_BATCH_BYTES", 100)
    request = make_request([1] * 30)
    ranked(Query(contract.Image(bytes(90)), 16), request.items)
    queue = queue_of(request)
    # Each document's text is one character, of the later ones two.
    assert [len(taken(queue)) for _ in range(4)] == [10, 5, 5, 5]


def test_what_a_query_costs_counts_once_for_admission() -> None:
    request, other = make_request([10] * 3), make_request([1])
    ranked(Query(contract.Text("q", "query"), 50), request.items)
    queue = PoolQueue(80, 10)
    admit(queue, other.items)
    with pytest.raises(QueueFull):
        queue.check_room(request.items, 0.0)
    ranked(Query(contract.Text("q", "query"), 49), request.items)
    queue.check_room(request.items, 0.0)


def test_interactive_goes_before_bulk_that_waits_longer() -> None:
    bulk, interactive = make_request([1, 1], bulk=True), make_request([1, 1])
    queue = queue_of(bulk, interactive)
    assert taken(queue) == interactive.items
    assert taken(queue) == bulk.items


def test_a_batch_is_of_one_class() -> None:
    queue = queue_of(make_request([1], bulk=True), make_request([1]))
    while items := taken(queue):
        assert len({item.priority for item in items}) == 1


def test_bulk_gets_its_share_while_interactive_never_ends() -> None:
    queue = PoolQueue(10**6, 10**6, bulk_share=0.2)
    admit(queue, make_request([10] * 1000, bulk=True).items)
    tokens = {True: 0, False: 0}
    for _ in range(500):
        admit(queue, make_request([10]).items)
        batch = take_next(queue, 10, 100, 0.0).batch
        assert batch is not None
        tokens[batch.priority] += batch.tokens
    assert tokens[True] / (tokens[True] + tokens[False]) == pytest.approx(0.2, abs=0.01)


def test_bulk_saves_nothing_up_while_it_does_not_wait() -> None:
    queue = PoolQueue(10**6, 10**6)
    for _ in range(100):
        admit(queue, make_request([10]).items)
        taken(queue, max_tokens=10)
    admit(queue, make_request([10], bulk=True).items)
    admit(queue, make_request([10]).items)
    assert [item.priority for item in taken(queue, max_tokens=10)] == [Priority.INTERACTIVE]


def test_what_may_wait_is_bounded_in_items() -> None:
    queue = queue_of(make_request([1] * 3), max_items=5)
    admit(queue, make_request([1] * 2).items)
    with pytest.raises(QueueFull):
        admit(queue, make_request([1]).items)


def test_what_may_wait_is_bounded_in_tokens() -> None:
    queue = queue_of(make_request([4]), max_tokens=10)
    admit(queue, make_request([6]).items)
    with pytest.raises(QueueFull):
        admit(queue, make_request([1]).items)


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    queue = queue_of(make_request([1] * 4), max_items=5)
    refused = make_request([1] * 2)
    with pytest.raises(QueueFull) as caught:
        admit(queue, refused.items)
    assert (queue.items, queue.tokens) == (4, 4)
    assert all(item.state is ItemState.PLANNED for item in refused.items)
    assert caught.value.retry_after is not None


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    request = make_request([50])
    assert taken(queue_of(request, max_tokens=10)) == request.items


def test_what_is_put_back_goes_first_and_in_order() -> None:
    request, other = make_request([1] * 4), make_request([1])
    queue = queue_of(request, other)
    batch = take_next(queue, 3, 3, 0.0).batch
    assert batch is not None
    back = batch.items[1:]
    for item in back:
        batch.remove(item)
    queue.put_back(back)
    assert taken(queue) == [*request.items[1:], *other.items]


def test_what_is_put_back_stays_in_its_class() -> None:
    bulk = make_request([1], bulk=True)
    queue = queue_of(bulk)
    [item] = taken(queue)
    queue.put_back([item])
    assert queue.depth(Priority.BULK) == (1, 1)
    assert queue.depth(Priority.INTERACTIVE) == (0, 0)


def test_what_is_put_back_is_never_refused() -> None:
    request = make_request([5, 5])
    queue = queue_of(request, max_tokens=10, max_items=2)
    items = taken(queue)
    admit(queue, make_request([10]).items)
    queue.put_back(items)
    assert queue.items == 3


def test_an_item_before_its_last_try_goes_alone() -> None:
    request = make_request([1] * 4)
    queue = queue_of(request)
    request.items[0].tries = request.items[2].tries = TRIES_BEFORE_ALONE
    assert [taken(queue) for _ in range(4)] == [[item] for item in request.items]


def test_what_stands_behind_failed_items_can_be_taken_without_them() -> None:
    request = make_request([1] * 5)
    queue = queue_of(request)
    request.items[0].tries = request.items[2].tries = 1
    batch, expired = queue.take(10, 2, 0.0, Priority.INTERACTIVE, untried=True)
    assert batch is not None
    assert (batch.items, expired) == ([request.items[1], request.items[3]], [])
    assert queue.waiting() == [request.items[0], request.items[2], request.items[4]]
    queue.take(10, 2, 0.0, Priority.INTERACTIVE, untried=True)
    assert queue.take(10, 2, 0.0, Priority.INTERACTIVE, untried=True) == (None, [])
    assert taken(queue) == [request.items[0], request.items[2]]


def test_items_out_of_time_are_handed_out_and_not_sent() -> None:
    late, early = make_request([1, 1], deadline=5.0), make_request([1], deadline=9.0)
    queue = queue_of(late, early)
    batch, expired = take_next(queue, 10, 10, 5.0)
    assert expired == late.items
    assert batch is not None
    assert batch.items == early.items
    assert (queue.items, queue.tokens) == (0, 0)


def test_a_queue_of_items_out_of_time_gives_no_batch() -> None:
    late = make_request([1, 1], deadline=5.0)
    queue = queue_of(late)
    assert take_next(queue, 10, 10, 6.0) == (None, late.items)


def test_a_cancelled_item_is_never_sent() -> None:
    request = make_request([1, 2, 3])
    queue = queue_of(request)
    queue.cancel(request.items[1:2], 0.0)
    assert (queue.items, queue.tokens) == (2, 4)
    assert taken(queue) == [request.items[0], request.items[2]]


def test_cancelling_what_has_left_changes_nothing() -> None:
    request = make_request([1, 2])
    queue = queue_of(request)
    batch = take_next(queue, 10, 10, 0.0).batch
    queue.cancel(request.items, 0.0)
    assert batch is not None
    assert batch.unfinished() == request.items
    assert (queue.items, queue.tokens) == (0, 0)


def test_a_batch_that_nobody_wants_any_more_is_ended_once() -> None:
    request = make_request([1, 1, 1])
    batch = take_next(queue_of(request), 10, 10, 0.0).batch
    assert batch is not None
    ended: list[int] = []
    batch.abort = lambda: ended.append(1)
    batch.remove(request.items[0])
    batch.remove(request.items[1], unwanted=True)
    assert ended == []
    batch.remove(request.items[2], unwanted=True)
    assert ended == [1]


def test_a_batch_whose_items_are_all_done_is_not_ended() -> None:
    request = make_request([1])
    batch = take_next(queue_of(request), 10, 10, 0.0).batch
    assert batch is not None
    batch.abort = lambda: pytest.fail("aborted")
    batch.remove(request.items[0])
    assert batch.unfinished() == []


def test_results_are_gathered_in_input_order_whatever_the_order_of_completion() -> None:
    finished: list[Job] = []
    request = make_request([1, 1, 1], finished=finished.append)
    for number in (2, 0, 1):
        assert finished == []
        request.resolve(request.items[number], vector(request.items[number], number), 1.0)
    assert finished == [request]
    assert request.vectors() == [vector(item, item.index) for item in request.items]


def test_the_first_error_stands_and_ends_the_request_once() -> None:
    finished: list[Job] = []
    request = make_request([1, 1], finished=finished.append)
    first = QueueFull("first")
    request.fail(first, 1.0)
    request.fail(QueueFull("second"), 2.0)
    request.resolve(request.items[0], vector(request.items[0]), 3.0)
    assert finished == [request]
    with pytest.raises(QueueFull, match="first"):
        request.vectors()
    assert request.done_at == 1.0


def test_an_error_after_the_last_result_changes_nothing() -> None:
    request = make_request([1])
    request.resolve(request.items[0], vector(request.items[0]), 1.0)
    request.fail(QueueFull("late"), 2.0)
    assert len(request.vectors()) == 1


def test_a_second_result_for_an_item_is_a_bug() -> None:
    request = make_request([1, 1])
    request.resolve(request.items[0], vector(request.items[0]), 1.0)
    with pytest.raises(RuntimeError, match="bug"):
        request.resolve(request.items[0], vector(request.items[0]), 1.0)


def backlog(queue: PoolQueue, tokens: int, per_second: int, seconds: float = 5.0) -> float:
    """Let `tokens` wait, and others be done beside them at a steady rate; returns the time after."""
    queue.admit(make_request([10] * (tokens // 10)).items, 0.0)
    done = make_request([per_second // 10] * round(10 * seconds)).items
    for step, item in enumerate(done, 1):
        queue.drained(item, step / 10)
    return seconds


def test_who_is_refused_is_told_when_half_of_what_waits_will_be_done() -> None:
    queue = PoolQueue(max_tokens=10_000, max_items=10_000)
    now = backlog(queue, tokens=10_000, per_second=1000)
    with pytest.raises(QueueFull) as refused:
        queue.check_room(make_request([10]).items, now)
    assert refused.value.retry_after in (5, 6)


def test_what_could_only_wait_until_its_time_is_over_is_refused() -> None:
    queue = PoolQueue(max_tokens=10**6, max_items=10**6)
    now = backlog(queue, tokens=10_000, per_second=1000)
    queue.check_room(make_request([10]).items, now, deadline=now + 30)
    with pytest.raises(QueueFull):
        queue.check_room(make_request([10]).items, now, deadline=now + 5)
    with pytest.raises(QueueFull):
        queue.check_room(make_request([10]).items, now, deadline=now + 30, in_flight=20_000)


def test_each_class_waits_for_its_own_share() -> None:
    """A query does not wait for the bulk that waits longer, and is not refused for it."""
    queue = PoolQueue(max_tokens=10**6, max_items=10**6)
    now = backlog(queue, tokens=10, per_second=1000)
    queue.admit(make_request([10_000], bulk=True).items, now)
    queue.check_room(make_request([10]).items, now, deadline=now + 1)
    with pytest.raises(QueueFull):
        queue.check_room(make_request([10], bulk=True).items, now, deadline=now + 1)


def test_bulk_is_left_where_it_may_not_be_taken() -> None:
    queue = queue_of(make_request([1], bulk=True))
    assert queue.next_priority(10, bulk_allowed=False) is None
    admit(queue, make_request([1]).items)
    assert queue.next_priority(10, bulk_allowed=False) is Priority.INTERACTIVE


def test_what_is_refused_whatever_it_is_is_what_no_request_could_get() -> None:
    queue = queue_of(make_request([10] * 2), max_tokens=1000, max_items=3)
    queue.check_any_room("retrieval", 0.0)
    admit(queue, make_request([1]).items)
    with pytest.raises(QueueFull, match="the queue of the pool retrieval is full: 3 items"):
        queue.check_any_room("retrieval", 0.0)
    taken(queue, max_items=1)
    queue.check_any_room("retrieval", 0.0)


def test_no_class_is_refused_unread_for_what_waits_in_the_other() -> None:
    queue, now = queue_of(make_request([100] * 12)), 0.0
    for item in taken(queue, max_items=8):
        now += 0.1
        queue.drained(item, now)
    # Interactive work has to wait for 400 tokens at 1,000 a second, bulk has its share of every second.
    with pytest.raises(QueueFull):
        queue.check_room(make_request([1]).items, now, now + 0.5)
    queue.check_room(make_request([1], bulk=True).items, now, now + 0.5)
    queue.check_any_room("retrieval", now, now + 0.5)
    admit(queue, make_request([100] * 4, bulk=True).items)
    with pytest.raises(QueueFull, match=r"the request has 0\.5 s"):
        queue.check_any_room("retrieval", now, now + 0.5)
