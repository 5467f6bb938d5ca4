"""Inputs of the simulation with their sources: engines, lengths of inputs, and the deployment."""

import math
import random
from collections.abc import Callable
from statistics import NormalDist, fmean
from typing import NamedTuple

from triptych.router.settings import RouterSettings


def lognormal(draw: random.Random, sigma: float = 0.15) -> float:
    """A random factor whose mean is 1."""
    return math.exp(draw.gauss(0.0, sigma) - sigma**2 / 2)


class Profile(NamedTuple):
    """An engine: seconds of a step, and the largest step.

    `call_seconds` are the time of a batch outside the engine (HTTP, tokenizing, the reply). `noise` draws the
    factor by which a step's time differs from the mean.
    """

    name: str
    seconds: float
    seconds_per_item: float
    seconds_per_token: float
    call_seconds: float
    noise: Callable[[random.Random], float] = lognormal
    step_tokens: int = 8192
    step_items: int = 256

    def step(self, items: float, tokens: float) -> float:
        """Seconds of one step, on average."""
        return self.seconds + self.seconds_per_item * items + self.seconds_per_token * tokens

    def capacity(self, mean_tokens: float) -> float:
        """Inputs a second with full steps, for inputs of `mean_tokens`."""
        items = min(float(self.step_items), max(1.0, self.step_tokens / mean_tokens))
        return items / self.step(items, items * mean_tokens)


# The line of least squared relative errors through the ten steps of docs/PERFORMANCE.md ("The engine's step",
# "after"). A call is the CPU time of router and front-end for one short text (0.5 and 1.2 ms, same document).
NANO = Profile("nano, CPU (measured)", 2.66e-3, 0.0825e-3, 4.59e-6, 1.7e-3)

# Assumptions: 5.5 GFLOP a token is twice the parameters of the language model without its embeddings; 989
# TFLOP/s is the H100's peak (bf16, dense: NVIDIA's data sheet); 40 % of it is common for long prefills of
# dense transformers.
GPU = Profile("H100 (assumed)", 15e-3, 0.0, 5.5 / (1000 * 989.0 * 0.4), 3e-3)


class Lengths(NamedTuple):
    """Tokens of inputs. Each kind has a share, a lognormal median and sigma; all are at most `longest`."""

    kinds: tuple[tuple[float, float, float], ...]
    longest: int = 4096

    def draw(self, draw: random.Random) -> int:
        """The tokens of one input."""
        point = draw.random()
        median, sigma = self.kinds[-1][1:]
        for share, *kind in self.kinds:
            point -= share
            if point < 0:
                median, sigma = kind
                break
        return self._tokens(median, sigma, draw.gauss(0.0, 1.0) if sigma else 0.0)

    @property
    def mean(self) -> float:
        """The mean of `draw`."""
        points = [NormalDist().inv_cdf((index + 0.5) / 2000) for index in range(2000)]
        return sum(
            share * fmean(self._tokens(median, sigma, point) for point in points)
            for share, median, sigma in self.kinds
        )

    def _tokens(self, median: float, sigma: float, point: float) -> int:
        return max(1, min(self.longest, round(median * math.exp(sigma * point))))


SHORT = Lengths(((1.0, 20, 0.0),))
TEXTS = Lengths(((0.3, 18, 0.5), (0.7, 550, 0.8)))


def default(name: str) -> int:
    """The default of a router setting."""
    return int(RouterSettings.model_fields[name].default)


class Setup(NamedTuple):
    """The deployment."""

    profile: Profile
    lengths: Lengths
    replicas: int
    routers: int = 1
    lanes: int = default("lanes")
    batch_items: int = default("batch_items")
    seed: int = 1

    @property
    def capacity(self) -> float:
        """Requests a second of one replica with full steps."""
        return self.profile.capacity(self.lengths.mean)
