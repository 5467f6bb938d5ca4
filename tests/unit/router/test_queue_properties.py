"""Properties of the queue: no item is lost, duplicated, reordered or left behind.

test_pool_properties.py has what becomes of jobs.
"""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.unit.router.items import admit, make_request, take_next
from triptych.router.errors import QueueFull
from triptych.router.items import Batch, Item, ItemState, Job, Priority
from triptych.router.pool.line import TRIES_BEFORE_ALONE
from triptych.router.pool.queue import PoolQueue

MAX_TOKENS = 60
MAX_ITEMS = 12

costs = st.integers(1, 30)


class Traffic(RuleBasedStateMachine):
    """A queue and its batches, against a model of plain lists."""

    keys: Sequence[str] = ("",)
    batches = Bundle("batches")
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.queue = PoolQueue(MAX_TOKENS, MAX_ITEMS)
        self.lines: dict[bool, list[Item]] = {False: [], True: []}

    @rule(
        target=requests,
        costs=st.lists(costs, min_size=1, max_size=6),
        bulk=st.booleans(),
        number=st.integers(0, 2),
    )
    def ask(self, costs: list[int], bulk: bool, number: int) -> object:
        request = make_request(costs, bulk=bulk, key=self.keys[number % len(self.keys)])
        waiting, tokens = self.queue.items, self.queue.tokens
        fits = waiting + len(costs) <= MAX_ITEMS and tokens + sum(costs) <= MAX_TOKENS
        try:
            admit(self.queue, request.items)
        except QueueFull:
            assert waiting > 0
            assert not fits or self.keys[0]
            return multiple()
        assert fits or waiting == 0
        self.lines[bulk] += request.items
        return request

    @rule(target=batches, tokens=st.integers(1, 40), items=st.integers(1, 6))
    def take(self, tokens: int, items: int) -> object:
        batch = take_next(self.queue, tokens, items)
        if batch is None:
            assert not any(self.lines.values())
            return multiple()
        line = self.lines[batch.priority]
        self.check(batch, line, tokens, items)
        for item in batch.items:
            line.remove(item)
        return batch

    def check(self, batch: Batch, line: list[Item], tokens: int, items: int) -> None:
        """A batch has the first items of each key; of one key, as many as fit."""
        for key in self.keys:
            taken = [item for item in batch.items if item.job.key == key]
            assert taken == [item for item in line if item.job.key == key][: len(taken)]
        assert {item.priority for item in batch.items} == {batch.priority}
        assert batch.tokens == sum(item.cost for item in batch.items)
        if len(batch.items) > 1:
            assert batch.tokens <= tokens
            assert len(batch.items) <= items
            assert all(item.tries < TRIES_BEFORE_ALONE for item in batch.items)
        following = line[len(batch.items) :]
        if following and len(self.keys) == 1 and batch.items[0].tries < TRIES_BEFORE_ALONE:
            assert (
                batch.tokens + following[0].cost > tokens
                or len(batch.items) == items
                or following[0].tries >= TRIES_BEFORE_ALONE
            )

    @rule(batch=batches, data=st.data())
    def finish_one(self, batch: Batch, data: st.DataObject) -> None:
        if left := batch.unfinished():
            batch.remove(data.draw(st.sampled_from(left), label="item"))

    @rule(batch=consumes(batches), failed=st.booleans())
    def give_back(self, batch: Batch, failed: bool) -> None:
        back = batch.unfinished()
        for item in back:
            item.tries += failed
            batch.remove(item)
        self.queue.put_back(back)
        self.lines[batch.priority][:0] = back

    @rule(request=consumes(requests))
    def cancel(self, request: Job) -> None:
        self.queue.cancel(request.items, 0.0)
        for line in self.lines.values():
            line[:] = [item for item in line if item.job is not request]
        for item in request.items:
            if item.state is ItemState.IN_FLIGHT and item.batch is not None:
                item.state = ItemState.DONE
                item.batch.remove(item, unwanted=True)

    @invariant()
    def queue_equals_the_model(self) -> None:
        waiting = self.queue.waiting()
        for key in self.keys:
            modelled = [item for line in self.lines.values() for item in line if item.job.key == key]
            assert [item for item in waiting if item.job.key == key] == modelled
        for bulk, line in self.lines.items():
            assert self.queue.depth(Priority(bulk)) == (len(line), sum(item.cost for item in line))
        assert self.queue.items == sum(map(len, self.lines.values()))
        assert self.queue.tokens == sum(item.cost for line in self.lines.values() for item in line)

    def teardown(self) -> None:
        """Serve the rest: nothing is left."""
        while before := self.queue.items:
            batch = self.take(10, 3)
            assert isinstance(batch, Batch)
            assert self.queue.items < before
            self.queue_equals_the_model()


class SharedTraffic(Traffic):
    """The same with three API keys: the order holds within a key."""

    keys = ("a", "b", "c")


TestTraffic = Traffic.TestCase
TestSharedTraffic = SharedTraffic.TestCase


@settings(deadline=None)
@given(
    share=st.floats(0.05, 0.5),
    interactive=st.lists(st.integers(1, 50), min_size=50, max_size=200),
    bulk_cost=st.integers(1, 50),
)
def test_bulk_wait_is_bounded_by_its_share(share: float, interactive: list[int], bulk_cost: int) -> None:
    """Whatever interactive items take while bulk waits is paid back in whole batches."""
    budget = 50
    queue = PoolQueue(10**9, 10**9, bulk_share=share)
    # Enough for all batches.
    enough = len(interactive) * (budget // bulk_cost + 1)
    queue.admit(make_request([bulk_cost] * enough, bulk=True).items, 0.0)
    ahead = 0.0
    for cost in interactive:
        admit(queue, make_request([cost]).items)
        batch = take_next(queue, budget, 1000)
        assert batch is not None
        ahead += -batch.tokens if batch.priority is Priority.BULK else batch.tokens * share / (1 - share)
        assert ahead <= budget + budget * share / (1 - share)
        assert ahead >= -budget
