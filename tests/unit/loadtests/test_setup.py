"""The command line: what it sets up and what it refuses."""

from argparse import Namespace
from contextlib import ExitStack

import pytest

from triptych.loadtests.__main__ import parser
from triptych.loadtests.capacity import Shape
from triptych.loadtests.crew import crew_of
from triptych.loadtests.objectives import read_objectives
from triptych.loadtests.scenario import read_scenario
from triptych.loadtests.setup import command_line, load_of, segments_of, until
from triptych.loadtests.target import find_target, metrics_pages

TARGET = ("--url", "http://127.0.0.1:1")


def options(*words: str, command: str = "run", target: tuple[str, ...] = TARGET) -> Namespace:
    return parser().parse_args([command, *target, *words])


def made(*words: str, command: str = "run") -> Shape:
    """The load, after all other options were looked at."""
    its = options(*words, command=command)
    objectives = read_objectives(its.slo) if its.slo else None
    crew_of(its)
    return load_of(its, read_scenario(its.scenario), objectives)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "fast"), "--rate: fast"),
        (("--rate", "1,nan"), "--rate: nan"),
        (("--processes", "1.5"), "--processes: 1.5: give a whole number"),
        (("--seconds", "0"), "--seconds: 0"),
        (("--seconds", "inf"), "--seconds: inf"),
        (("--processes", "0"), "--processes: 0"),
        (("--join", "5557"), "--join: 5557"),
        (("--join", "[::]:65536"), "--join: [::]:65536"),
        (("--join", "0.0.0.0:1", "--ray", "auto"), "not allowed with"),
    ],
)
def test_invalid_value_is_named(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        made(*words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--ray", "auto")])
def test_run_listens_on_loopback_unless_asked(words: tuple[str, ...]) -> None:
    assert crew_of(options(*words)).bind == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shape", "spike", "--rate", "5"), "takes 2 loads"),
        (("--rate", "5,6"), "takes 1 loads"),
        (("--slo", "p99=fast"), "p99=fast"),
        (("--scenario", "absent"), "absent"),
    ],
)
def test_invalid_option_is_named(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--start", "5", "--most", "4"), "--start 5"),
        (("--slo", "capacity=5"), "capacity alone"),
        # 250 requests at 0.1 a second take 2,500 s, more than 20 times the default.
        (("--start", "0.1"), r"--start 0\.1: .*--seconds 125"),
    ],
)
def test_search_without_a_possible_result_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(*words, command="find-capacity")


@pytest.mark.parametrize("option", ["--url", "--metrics"])
@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "nowhere=http://h:1", "ftp://x", "http://", "https://me:s3cret@h"]
)
def test_invalid_address_is_refused(option: str, url: str) -> None:
    its = options(option, url, target=TARGET if option == "--metrics" else ())
    with ExitStack() as stack, pytest.raises(ValueError, match=option) as refused:
        metrics_pages(its, find_target(its, stack)[0], None)
    assert "s3cret" not in str(refused.value)


def test_secrets_are_masked_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", *TARGET, "--key", "s3cret-key", "--worker-token=s3cret-token", "--rate", "5"]
    monkeypatch.setattr("sys.argv", ["loadtests", *words])
    command = command_line(parser().parse_args(words))
    assert "s3cret" not in command
    assert command.startswith("python -m loadtests run --url")
    assert "--rate 5" in command


@pytest.mark.parametrize("option", ["--start", "--precision", "--seconds"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e-9"])
def test_endless_search_is_refused(option: str, value: str) -> None:
    with pytest.raises(SystemExit):
        made(f"{option}={value}", command="find-capacity")


def test_tries_bring_enough_replies() -> None:
    [first] = next(made("--start", "5", command="find-capacity"))
    assert 5 * (first.seconds - first.settle) >= 200


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ("constant", [40.0], [("steady", 5.0, 40.0)]),
        ("soak", [8.0], [("soak", 5.0, 8.0)]),
        ("step", [20.0, 2.5], [("20/s", 5.0, 20.0), ("2.5/s", 5.0, 2.5)]),
        (
            "spike",
            [20.0, 200.0],
            [("before", 5.0, 20.0), ("spike", 0.0, 200.0), ("after", 0.0, 20.0)],
        ),
    ],
)
def test_shape_has_its_segments(shape: str, given: list[float], expected: object) -> None:
    found = segments_of(shape, given, 30.0)
    assert [(one.name, one.settle, one.rate) for one in found] == expected
    assert {one.seconds for one in found} == {30.0}


def test_stopped_steps_keep_what_had_started() -> None:
    steps = segments_of("step", [20.0, 40.0, 80.0], 30.0)
    assert [(one.name, one.seconds) for one in until(45.0, steps)] == [("20/s", 30.0), ("40/s", 15.0)]
    assert until(60.0, steps) == steps[:2]
    assert until(-0.1, steps) == []
