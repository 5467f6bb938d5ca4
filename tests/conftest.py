"""Settings for all tests: the hypothesis profile, garbage collection, and what runs in one process."""

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


# Memory holds the engines of one folder, so pytest-xdist runs all of these tests in one process.
WITH_ENGINES = ("cluster", "e2e", "integration")


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.parent.name in WITH_ENGINES:
        item.add_marker(pytest.mark.xdist_group("engines"))


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
