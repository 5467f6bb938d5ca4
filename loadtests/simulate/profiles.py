"""Inputs of the simulation with their sources: step times of engines, and lengths of inputs."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist, fmean

# Items, tokens of each, milliseconds of a step: docs/PERFORMANCE.md, "The engine's step", "after".
NANO_STEPS = (
    (1, 20, 2.9),
    (8, 20, 3.7),
    (16, 20, 5.7),
    (32, 20, 8.8),
    (64, 20, 14.5),
    (128, 20, 24.7),
    (256, 20, 44.9),
    (4, 512, 12.4),
    (8, 512, 25.2),
    (16, 512, 38.0),
)

# Assumptions: 5.5 GFLOP a token is twice the parameters of the language model without its embeddings; 40 % of
# the peak is common for long prefills of dense transformers.
GFLOP_PER_TOKEN = 5.5
H100_PEAK_TFLOPS = 989.0  # bf16, dense: NVIDIA's data sheet.
H100_SHARE_OF_PEAK = 0.4
H100_SECONDS_PER_STEP = 0.015


def lognormal(draw: random.Random, sigma: float = 0.15) -> float:
    """A random factor whose mean is 1."""
    return math.exp(draw.gauss(0.0, sigma) - sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class Profile:
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

    def step(self, items: int, tokens: int, draw: random.Random) -> float:
        """Seconds of one step."""
        mean = self.seconds + self.seconds_per_item * items + self.seconds_per_token * tokens
        return mean * self.noise(draw)

    def capacity(self, mean_tokens: float) -> float:
        """Inputs a second with full steps, for inputs of `mean_tokens`."""
        items = min(float(self.step_items), max(1.0, self.step_tokens / mean_tokens))
        return items / (self.seconds + items * (self.seconds_per_item + self.seconds_per_token * mean_tokens))


# The line of least squared relative errors through NANO_STEPS. A call is the CPU time of router and front-end
# for one short text (0.5 and 1.2 ms, docs/PERFORMANCE.md).
NANO = Profile("nano, CPU (measured)", 2.66e-3, 0.0825e-3, 4.59e-6, 1.7e-3)
GPU = Profile(
    "H100 (assumed)",
    H100_SECONDS_PER_STEP,
    0.0,
    GFLOP_PER_TOKEN / (1000 * H100_PEAK_TFLOPS * H100_SHARE_OF_PEAK),
    3e-3,
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of inputs. Each kind has a share, a lognormal median and sigma; all are at most `longest`."""

    name: str
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
        tokens = median * math.exp(sigma * draw.gauss(0.0, 1.0)) if sigma else median
        return max(1, min(self.longest, round(tokens)))

    @property
    def mean(self) -> float:
        """The mean of `draw`."""
        points = [NormalDist().inv_cdf((index + 0.5) / 2000) for index in range(2000)]
        return sum(
            share
            * fmean(max(1, min(self.longest, round(median * math.exp(sigma * point)))) for point in points)
            for share, median, sigma in self.kinds
        )


SHORT = Lengths("20-token texts", ((1.0, 20, 0.0),))
TEXTS = Lengths("3 queries for 7 passages", ((0.3, 18, 0.5), (0.7, 550, 0.8)))
PAGES = Lengths("pages as images", ((1.0, 1300, 0.4),))
