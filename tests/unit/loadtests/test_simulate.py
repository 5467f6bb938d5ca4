"""The simulation against queueing theory, and against its own bookkeeping."""

import math
import random
from collections.abc import Callable

import pytest

from triptych.loadtests.simulate.profiles import GPU, SHORT, TEXTS, Lengths, Profile, Setup, lognormal
from triptych.loadtests.simulate.simulation import Outcome, simulate

SECONDS = 0.01
ONE = Lengths(((1.0, 1, 0.0),))


def exponential(draw: random.Random) -> float:
    return draw.expovariate(1)


def at_load(
    load: float, seconds: float, noise: Callable[[random.Random], float], replicas: int = 1
) -> Outcome:
    """A queue of theory: servers take one request at a time, and no time passes outside them."""
    engine = Profile("theory", SECONDS, 0.0, 0.0, 0.0, noise, step_items=1)
    setup = Setup(profile=engine, lengths=ONE, replicas=replicas, lanes=1, batch_items=1)
    return simulate(setup, load, seconds - 1, 1.0)


def mean_wait(outcome: Outcome) -> float:
    return sum(outcome.latency) / len(outcome.latency) - SECONDS


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait, by Erlang's C formula."""
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("noise", "second_moment"), [(exponential, 2.0), (lambda draw: 1.0, 1.0)])
def test_one_replica_is_an_mg1_queue(noise: Callable[[random.Random], float], second_moment: float) -> None:
    outcome = at_load(0.5, 240, noise)
    # Pollaczek and Khinchine, for the load that the drawn arrivals made.
    expected = outcome.busy * second_moment * SECONDS / (2 * (1 - outcome.busy))
    assert mean_wait(outcome) == pytest.approx(expected, rel=0.1)


def test_five_replicas_are_an_mm5_queue() -> None:
    outcome = at_load(0.75, 40, exponential, 5)
    assert outcome.busy == pytest.approx(0.75, rel=0.03)
    expected = erlang_c(5, outcome.busy) * SECONDS / (5 * (1 - outcome.busy))
    assert mean_wait(outcome) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("load", [0.5, 3.0])
def test_every_request_ends_once(load: float) -> None:
    outcome = simulate(Setup(profile=GPU, lengths=TEXTS, replicas=2, routers=3), load, 15.0)
    assert len(outcome.latency) + outcome.failed == outcome.requests > 1000
    assert (outcome.failed > 0) == (load > 1)


def test_seed_decides_the_numbers() -> None:
    def numbers(seed: int) -> list[float]:
        return simulate(Setup(profile=GPU, lengths=TEXTS, replicas=3, routers=2, seed=seed), 0.7, 3).latency

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


@pytest.mark.parametrize("lengths", [SHORT, TEXTS])
def test_drawn_values_have_their_mean(lengths: Lengths) -> None:
    draw = random.Random(1)
    drawn = [lengths.draw(draw) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(lengths.mean, rel=0.03)
    assert max(drawn) <= lengths.longest
    assert sum(lognormal(draw, 0.5) for _ in drawn) / len(drawn) == pytest.approx(1.0, rel=0.02)
