"""Messages between the conductor of a run and the processes that send its load: JSON over WebSockets."""

import msgspec

from triptych.loadtests.arrivals import Arrivals
from triptych.loadtests.dialects import Target
from triptych.loadtests.recording import Samples
from triptych.loadtests.results import Process, Segment

# A plan holds all golden vectors.
MESSAGE_BYTES = 1 << 26
# A peer that is silent for this long is pinged; without a reply in half of that time it is lost.
HEARTBEAT_SECONDS = 7.0


class HarnessFailed(Exception):
    """The load tester itself failed, so the run has no result."""


class Stopped(KeyboardInterrupt):
    """The second Ctrl-C. The text says what is missing."""


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """What one process needs to know before any load. `scenario` is JSON, `golden` a file of vectors."""

    target: Target
    scenario: str
    seed: str
    arrivals: Arrivals
    in_flight: int
    calibration: dict[str, float]
    golden: bytes
    process: int = 0
    processes: int = 1


class Load(msgspec.Struct, kw_only=True, frozen=True):
    """Segments to go through, starting `delay` seconds after this message arrives."""

    number: int
    segments: list[Segment]
    interval: float
    delay: float


class Done(msgspec.Struct, kw_only=True, tag=True):
    """A process has finished a load. `processes`: itself, in each segment. `compared`: vectors so far."""

    processes: list[Process]
    compared: int


class Broken(msgspec.Struct, tag=True):
    """A process failed, or its connection ended."""

    why: str


ToConductor = Samples | Done | Broken
