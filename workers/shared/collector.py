"""Garbage collection in a server process."""

import gc

# So many objects, made and not yet freed, start a collection. Python's own is 700: a few requests have more.
THRESHOLD = 10_000


def settle() -> None:
    """Exempt all present objects from garbage collection, and collect more rarely from now on.

    Call it before the first request: scanning the objects of imported modules again and again takes a tenth
    of a router's time, and for 0.3 s at once in a worker, which has those of vLLM and torch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
