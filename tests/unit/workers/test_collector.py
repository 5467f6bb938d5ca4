import gc
import weakref
from collections.abc import Iterator

import pytest

from triptych.workers.shared.collector import THRESHOLD, freeze


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_only_later_objects_are_collected() -> None:
    early = Cycle()
    freeze()
    late = Cycle()
    early_left, late_left = weakref.ref(early), weakref.ref(late)
    del early, late
    gc.collect()
    assert early_left() is not None
    assert late_left() is None
    assert gc.get_threshold()[0] == THRESHOLD
