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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = [item.path.parent for item in items]
    place = {folder: number for number, folder in enumerate(dict.fromkeys(folders))}
    # Tests that end a worker come last in their folder, so that they need no engine of their own.
    items.sort(key=lambda item: (place[item.path.parent], item.get_closest_marker("ends_worker") is not None))
    for item in items:
        if item.path.parent.name in WITH_ENGINES:
            item.add_marker(pytest.mark.xdist_group("engines"))


def pytest_collection_finish() -> None:
    # With vLLM, torch and Ray imported, a full collection stops a test's event loop for a third of a second.
    # Frozen objects are not visited.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Libraries that look for leaks at exit would find the frozen objects.
    gc.unfreeze()
