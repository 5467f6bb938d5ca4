"""Settings for all tests: hypothesis, signals, garbage collection, the order of tests, and GPUs."""

import gc
import signal
from functools import cache

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

# A background job of a script ignores SIGINT, and nohup ignores SIGHUP. The processes that tests signal would
# inherit that. They do not inherit a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
    # Tests that end a worker come last in their folder, so that they need no engine of their own.
    folders = list(dict.fromkeys(item.path.parent for item in items))
    items.sort(
        key=lambda item: (
            folders.index(item.path.parent),
            item.get_closest_marker("ends_worker") is not None,
        )
    )


@cache
def has_gpu() -> bool:
    # Imported only if a test asks: it takes seconds.
    import torch

    return torch.cuda.is_available()


def pytest_collection_finish() -> None:
    # With vLLM, torch and Ray imported, a full collection stops a test's event loop for a third of a second.
    # Frozen objects are not visited.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # Libraries that look for leaks at exit would find the frozen objects.
    gc.unfreeze()
