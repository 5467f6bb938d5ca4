"""A log whose pipe is full loses lines and blocks nothing."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import pytest

from triptych.workers.shared import logs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def logger_to(descriptor: int, formatter: logging.Formatter) -> logging.Logger:
    handler = logs.Handler(descriptor)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


@pytest.mark.parametrize("line", ["short", "é" * 9000, "\ud800"])
def test_full_pipe_drops_lines_and_says_so(pipe: tuple[int, int], line: str) -> None:
    before = logs.dropped_lines
    logger = logger_to(pipe[1], logs.JsonFormatter())
    while logs.dropped_lines < before + 10:
        logger.warning("%s", line)
    dropped = logs.dropped_lines - before
    os.set_blocking(pipe[0], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(pipe[0], 1 << 16)
    logger.warning("after")
    said, after = [json.loads(each)["message"] for each in os.read(pipe[0], 1 << 16).splitlines()[-2:]]
    assert said.startswith(f"{dropped} log lines")
    assert after == "after"
    assert logs.dropped_lines - before == dropped


def test_closed_pipe_drops_lines() -> None:
    read, write = os.pipe()
    os.close(read)
    before = logs.dropped_lines
    logger_to(write, logs.PlainFormatter()).warning("lost")
    os.close(write)
    assert logs.dropped_lines == before + 1


def test_wrong_log_call_raises_nothing(pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    logger = logger_to(pipe[1], logs.PlainFormatter())
    logger.warning("%d", "not a number")
    assert "not a number" in capsys.readouterr().err
    logger.warning("after")
    assert os.read(pipe[0], 1 << 16).endswith(b"after\n")


def test_lines_are_whole_and_in_order(pipe: tuple[int, int]) -> None:
    logger = logger_to(pipe[1], logs.PlainFormatter())
    for number in range(3):
        logger.warning("%d %s", number, "x" * 5000)
    lines = os.read(pipe[0], 1 << 16).decode().splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"{number} {'x' * 5000}" for number in range(3)]
