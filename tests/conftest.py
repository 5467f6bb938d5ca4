"""Settings for all tests: the hypothesis profile, garbage collection, and the order of tests."""

import gc

import pytest
from hypothesis import HealthCheck, settings

# No deadline, because the time of an example depends on the machine. The examples are the same in every run,
# so that a failure can be repeated.
settings.register_profile(
    "triptych",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("triptych")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests that end a worker come last in their folder, so that they need no engine of their own.
    folders = list(dict.fromkeys(item.path.parent for item in items))
    items.sort(
        key=lambda item: (
            folders.index(item.path.parent),
            item.get_closest_marker("ends_worker") is not None,
        )
    )


def pytest_collection_finish() -> None:
    # With vLLM, torch and Ray imported, a full collection stops a test's event loop for a third of a second.
    # Frozen objects are not visited.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Libraries that look for leaks at exit would find the frozen objects.
    gc.unfreeze()
