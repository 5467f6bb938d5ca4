"""Settings of all tests."""

import gc

from hypothesis import HealthCheck, settings

# No deadline per example: it would depend on the machine. Examples are the same in each run, so that failures
# can be reproduced.
settings.register_profile(
    "triptych",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("triptych")


def pytest_collection_finish() -> None:
    # With vLLM, torch and Ray imported, a full collection stops the event loop for more than 0.3 s.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Otherwise libraries report leaks at exit.
    gc.unfreeze()
