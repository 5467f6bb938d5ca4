"""Rate limits: their arithmetic, and processes that share a file."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.router.access.keys import Key
from triptych.router.access.limits import WINDOW_SECONDS, Allowance, Levels, Memory, Store, duration
from triptych.router.access.limits_file import LimitsFile
from triptych.router.errors import RateExceeded, RequestRateExceeded, TokenRateExceeded

NOW = 1_000_000.0


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Memory() if request.param == "memory" else LimitsFile(tmp_path / "limits")


def key(requests: int | None = None, tokens: int | None = None, number: int = 0) -> Key:
    return Key(
        name="a", sha256=f"{number:x}".ljust(64, "0"), requests_per_minute=requests, tokens_per_minute=tokens
    )


def admitted(key: Key, store: Store, now: float) -> Allowance:
    """What a request of `key` may use, once it is admitted."""
    allowance = Allowance(key, store)
    allowance.take_request(now)
    return allowance


def headers(allowance: Allowance, now: float = NOW) -> dict[str, str]:
    return {
        name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in allowance.headers(now)
    }


def test_burst_then_constant_rate(store: Store) -> None:
    limited = key(requests=6)
    for _ in range(6):
        admitted(limited, store, NOW)
    expected = [(0, False), (9.9, False), (10, True), (10, False), (30, True), (30, True), (30, False)]
    for later, served in expected:
        if served:
            admitted(limited, store, NOW + later)
        else:
            with pytest.raises(RequestRateExceeded) as refused:
                admitted(limited, store, NOW + later)
            assert refused.value.retry_after in (1, 10)


def test_keys_are_limited_separately(store: Store) -> None:
    admitted(key(requests=1, number=1), store, NOW)
    admitted(key(requests=1, number=2), store, NOW)
    with pytest.raises(RequestRateExceeded):
        admitted(key(requests=1, number=1), store, NOW)


def test_debt_is_paid_first(store: Store) -> None:
    limited = key(tokens=600)
    allowance = admitted(limited, store, NOW)
    allowance.take_tokens(600, NOW)
    allowance.used = 900
    allowance.settle(NOW, refused=False)
    assert headers(allowance) == {"limit-tokens": "600", "remaining-tokens": "0", "reset-tokens": "1m30s"}
    with pytest.raises(TokenRateExceeded) as caught:
        admitted(limited, store, NOW).take_tokens(10, NOW)
    assert caught.value.retry_after == 31
    admitted(limited, store, NOW + 31).take_tokens(10, NOW + 31)


def test_late_refund_does_not_overfill(store: Store) -> None:
    limited = key(tokens=100)
    allowance = admitted(limited, store, NOW)
    allowance.take_tokens(50, NOW)
    allowance.settle(NOW + 600, refused=False)
    assert headers(allowance, NOW + 600)["remaining-tokens"] == "100"
    admitted(limited, store, NOW + 600).take_tokens(100, NOW + 600)
    with pytest.raises(TokenRateExceeded):
        admitted(limited, store, NOW + 600).take_tokens(1, NOW + 600)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 300), st.integers(0, 300)), max_size=60),
    st.integers(1, 200),
)
def test_rate_holds_on_average(asked: list[tuple[float, int, int]], limit: int) -> None:
    """From a full bucket: at most a minute's worth at once, one oversized request, and the rate since."""
    store, limited = Memory(), key(tokens=limit)
    now, served, over = NOW, 0, 0
    waits: list[int] = []
    for pause, estimated, used in asked:
        now += pause
        allowance = admitted(limited, store, now)
        try:
            allowance.take_tokens(estimated, now)
        except TokenRateExceeded as error:
            waits.append(error.retry_after or 0)
            continue
        allowance.used = used
        allowance.settle(now, refused=False)
        served += used
        over = max(over, used, estimated)
        assert served <= limit * (1 + (now - NOW) / WINDOW_SECONDS) + over + 1e-3
    assert all(waits)


@given(st.integers(1, 1000), st.integers(1, 3000), st.integers(1, 3000))
def test_retry_after_is_enough(limit: int, first: int, second: int) -> None:
    store, limited = Memory(), key(tokens=limit)
    admitted(limited, store, NOW).take_tokens(first, NOW)
    try:
        admitted(limited, store, NOW).take_tokens(second, NOW)
    except TokenRateExceeded as error:
        later = NOW + (error.retry_after or 0)
        admitted(limited, store, later).take_tokens(second, later)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.012, "12ms"),
        (0.9995, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (61.5, "1m1.5s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (7384.25, "2h3m4.25s"),
    ],
)
def test_reset_is_formatted_as_openais(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _take_all(path: Path, start: Barrier, taken: "multiprocessing.Queue[int]") -> None:
    store = LimitsFile(path)
    served = 0
    start.wait(GUARD_SECONDS)
    for _ in range(3_000):
        try:
            admitted(key(requests=4_000), store, NOW)
            served += 1
        except RateExceeded:
            pass
    taken.put(served)


def test_processes_share_limits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[int] = context.Queue()
    arguments = (tmp_path / "limits", context.Barrier(2), taken)
    processes = [context.Process(target=_take_all, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    counts = [taken.get(timeout=GUARD_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    assert sum(counts) == 4_000


def test_failed_change_leaves_the_file(tmp_path: Path) -> None:
    one, other = LimitsFile(tmp_path / "limits"), LimitsFile(tmp_path / "limits")
    one.change(b"k" * 32, lambda _: Levels(1.0, 2.0))
    with pytest.raises(ZeroDivisionError):
        one.change(b"k" * 32, Mock(side_effect=ZeroDivisionError))
    assert other.change(b"k" * 32, lambda levels: levels) == Levels(1.0, 2.0)


def test_full_file_replaces_the_idlest_key(tmp_path: Path) -> None:
    one, other = (LimitsFile(tmp_path / "limits", capacity=3) for _ in range(2))
    names = [letter * 32 for letter in (b"a", b"b", b"c", b"d")]
    for store in (one, other):
        for at, name in enumerate(names[:3]):
            store.change(name, lambda _, at=at: Levels(10.0 - at, 0.0))  # type: ignore[misc]
    one.change(names[3], lambda _: Levels(20.0, 0.0))
    kept = [other.change(name, lambda levels: levels).requests for name in (names[0], names[1], names[3])]
    assert kept == [10.0, 9.0, 20.0]


def test_file_of_another_boot_is_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock restarts at 0 with a boot, so the times in an older file are far ahead."""
    boots = ["0e8e2b42-5bd1-4cd8-93c5-6a1ee4a9a0a5", "b3a1b6c4-0a54-44c3-8c53-2a4b7f2b6d10"]
    for boot, times in ((boots[0], 3), (boots[0], 0), (boots[1], 3)):
        (tmp_path / "boot").write_text(f"{boot}\n")
        store = LimitsFile(tmp_path / "limits", boot_id=tmp_path / "boot")
        for _ in range(times):
            admitted(key(requests=3), store, NOW)
        with pytest.raises(RequestRateExceeded):
            admitted(key(requests=3), store, NOW)


@pytest.mark.parametrize("content", [b"[]", b"x" * 100])
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(OSError, match="not a limits file"):
        LimitsFile(tmp_path / "keys")
    assert (tmp_path / "keys").read_bytes() == content
