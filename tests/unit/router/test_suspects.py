"""How long a worker's death counts against an item; tests/fault/test_death_and_return.py has the rest."""

import pytest

from tests.unit.router.items import make_item
from triptych.router.errors import CrashesWorker
from triptych.router.pool.suspects import DEATHS_UNTIL_REFUSED, REMEMBERED_SECONDS, Suspects


def test_deaths_are_forgotten_in_time() -> None:
    suspects = Suspects()
    for number in range(DEATHS_UNTIL_REFUSED):
        suspects.died([make_item(name="a")], [], f"process {number}", 0.0)
    with pytest.raises(CrashesWorker):
        suspects.check([make_item(name="a")], REMEMBERED_SECONDS - 1)
    item = make_item(name="a")
    suspects.check([item], REMEMBERED_SECONDS)
    assert item.deaths == 0


def test_one_death_counts_once_for_copies() -> None:
    suspects, copies = Suspects(), [make_item(name="a") for _ in range(4)]
    for batch in (copies[:2], copies[2:]):
        assert suspects.died(batch, copies, "one process", 0.0) == []
    assert {item.deaths for item in copies} == {1}


def test_waiting_copy_is_refused() -> None:
    suspects, item, waiting = Suspects(), make_item(name="a"), make_item(name="a")
    suspects.died([item], [waiting], "one", 0.0)
    assert {refused for refused, _ in suspects.died([item], [waiting], "two", 0.0)} == {item, waiting}
