"""Items that were in flight when a worker died."""

import pytest

from tests.unit.router.items import make_item
from triptych.router.errors import CrashesWorker
from triptych.router.pool.suspects import DEATHS_UNTIL_REFUSED, REMEMBERED_SECONDS, Suspects


@pytest.fixture
def suspects() -> Suspects:
    return Suspects()


def kill(suspects: Suspects, name: str, deaths: int, at: float = 0.0) -> int:
    """Let an item be in flight at `deaths` deaths; returns how many items are refused at the last."""
    refused = 0
    for number in range(deaths):
        item = make_item(name=name)
        suspects.check([item], at)
        refused = len(suspects.died([item], [], f"process {number}", at))
    return refused


def test_refused_after_two_deaths(suspects: Suspects) -> None:
    assert kill(suspects, "a", DEATHS_UNTIL_REFUSED - 1) == 0
    assert kill(suspects, "b", DEATHS_UNTIL_REFUSED) == 1
    copy = make_item(name="b")
    with pytest.raises(CrashesWorker):
        suspects.check([make_item(name="c"), copy], 1.0)
    suspects.check([make_item(name="a")], 1.0)


def test_deaths_are_forgotten_in_time(suspects: Suspects) -> None:
    kill(suspects, "a", DEATHS_UNTIL_REFUSED)
    item = make_item(name="a")
    suspects.check([item], REMEMBERED_SECONDS)
    assert item.deaths == 0


def test_one_death_counts_once_for_copies(suspects: Suspects) -> None:
    copies = [make_item(name="a") for _ in range(4)]
    for batch in (copies[:2], copies[2:]):
        assert suspects.died(batch, copies, "one process", 0.0) == []
    assert {item.deaths for item in copies} == {1}


def test_waiting_copy_is_refused(suspects: Suspects) -> None:
    item, waiting = make_item(name="a"), make_item(name="a")
    suspects.died([item], [waiting], "one", 0.0)
    assert {refused for refused, _ in suspects.died([item], [waiting], "two", 0.0)} == {item, waiting}


def test_success_clears_a_suspect(suspects: Suspects) -> None:
    item = make_item(name="a")
    suspects.died([item], [], "one", 0.0)
    suspects.clear(item)
    assert suspects.died([item], [], "two", 0.0) == []
    assert item.deaths == 1
