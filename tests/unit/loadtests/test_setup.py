"""The command line: what is refused with what would be right, and what is made of it."""

import sys
from contextlib import ExitStack

import pytest

from loadtests.__main__ import _parser, main
from loadtests.results import Segment
from loadtests.setup import Setup, setup
from tests.unit.loadtests.test_estimates import interval, measured

TARGET = ("--url", "http://127.0.0.1:1")


def made(*words: str, command: str = "run", target: tuple[str, ...] = TARGET) -> Setup:
    with ExitStack() as stack:
        return setup(_parser().parse_args([command, *target, *words]), stack)


def segments(*words: str) -> list[Segment]:
    return list(made(*words).options.shape())


@pytest.mark.parametrize(
    ("words", "loads"),
    [
        (("--rate", "50"), [(50, 50)]),
        (("--shape", "ramp", "--rate", "10,200"), [(10, 200)]),
        (("--shape", "step", "--rate", "1,2,3"), [(1, 1), (2, 2), (3, 3)]),
        (("--shape", "spike", "--rate", "10,90"), [(10, 10), (90, 90), (10, 10)]),
        (("--shape", "soak", "--rate", "7"), [(7, 7)]),
    ],
)
def test_shapes_are_segments_of_rates(words: tuple[str, ...], loads: list[tuple[float, float]]) -> None:
    found = segments(*words)
    assert [segment.rate for segment in found] == loads
    assert all(segment.users is None for segment in found)


def test_users_make_a_closed_loop() -> None:
    assert [segment.users for segment in segments("--shape", "step", "--users", "1,16")] == [(1, 1), (16, 16)]
    assert made("--users", "4").options.loop == "closed"
    assert made().options.loop == "open"


def test_a_soak_takes_longer_unless_it_is_told_how_long() -> None:
    assert segments("--shape", "soak")[0].seconds > 10 * segments("--shape", "constant")[0].seconds
    assert segments("--shape", "soak", "--seconds", "5")[0].seconds == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "5", "--users", "5"), "exclude each other"),
        (("--rate", "fast"), "--rate fast"),
        (("--rate", "nan"), "--rate nan"),
        (("--users", "inf"), "--users inf"),
        (("--users", "1.5"), "whole numbers"),
        (("--shape", "ramp", "--rate", "5"), "takes 2 loads"),
        (("--rate", "5,6"), "takes 1 loads"),
        (("--seconds", "0"), "--seconds 0: more than 0"),
        (("--seconds", "nan"), "--seconds nan: more than 0"),
        (("--processes", "0"), "at least 1"),
        (("--join", "5557"), "an address of this machine and a port"),
        (("--join", "0.0.0.0:1", "--ray", "auto"), "give one"),
        (("--slo", "p99=fast"), "p99=fast"),
        (("--scenario", "absent"), "absent"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_what_would(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(*words)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "nowhere=http://127.0.0.1:1", "ftp://x"])
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--url"):
        made(target=("--url", url))


def test_a_target_is_one_address_or_one_for_each_pool() -> None:
    assert made().options.target == {"": "http://127.0.0.1:1"}
    urls = ("--url", "code=http://a:1", "--url", "retrieval=http://b:2", "--url", "text-matching=http://c:3")
    found = made("--dialect", "vllm", target=urls).options
    assert found.target == {"code": "http://a:1", "retrieval": "http://b:2", "text-matching": "http://c:3"}
    assert found.pages == {
        "server code": "http://a:1/metrics",
        "server retrieval": "http://b:2/metrics",
        "server text-matching": "http://c:3/metrics",
    }


def test_secrets_are_not_in_the_command_that_the_report_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", *TARGET, "--key", "s3cret-key", "--worker-token=s3cret-token", "--rate", "5"]
    monkeypatch.setattr("sys.argv", ["loadtests", *words])
    with ExitStack() as stack:
        found = setup(_parser().parse_args(words), stack).options
    assert "s3cret" not in found.command
    assert "--rate 5" in found.command


def test_a_search_needs_a_rate_to_begin_with() -> None:
    assert made(command="find-capacity").options.adaptive
    with pytest.raises(ValueError, match="--start"):
        made("--start", "0", command="find-capacity")


@pytest.mark.parametrize("option", ["--precision", "--seconds"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e-9"])
def test_a_search_that_would_have_no_end_or_no_try_is_refused(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=option):
        made(option, value, command="find-capacity")


def test_a_search_needs_something_that_a_rate_is_judged_by() -> None:
    with pytest.raises(ValueError, match="judged by"):
        made("--slo", "capacity=5", command="find-capacity")


def test_a_search_makes_a_try_longer_that_has_too_few_replies_for_its_objective() -> None:
    shape = made(command="find-capacity").options.shape()
    next(shape)
    more = shape.send(measured([interval([0.1] * 5)] * 18))
    assert (more.name, more.rate) == ("110 more replies at 10/s", (10, 10))


@pytest.mark.parametrize("words", [["run"], ["find-capacity"], ["join", "127.0.0.1:1"]])
def test_without_locust_there_is_no_result_but_what_to_do(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "locust", None)
    monkeypatch.setattr(sys, "argv", ["loadtests", *words])
    assert main() == 2
    assert "make loadtest-venv" in capsys.readouterr().err
