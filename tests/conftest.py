"""For all tests."""

import gc

from hypothesis import HealthCheck, settings

# An example takes as long as the machine happens to take; nothing here is judged by that. The examples are
# the same each time, so that what fails once fails again, and elsewhere.
settings.register_profile(
    "triptych",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("triptych")


def pytest_collection_finish() -> None:
    # With vLLM, torch and Ray imported, a full collection stops the event loop of a test, with its router and
    # its workers, for a third of a second and more.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Else what libraries look for at the end is still there, and they complain of leaks.
    gc.unfreeze()
