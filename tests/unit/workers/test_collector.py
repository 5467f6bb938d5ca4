import gc

from triptych.workers.shared.collector import THRESHOLD, freeze


def test_present_objects_are_frozen() -> None:
    thresholds = gc.get_threshold()
    freeze()
    try:
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == THRESHOLD
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
