"""What the conductor tells the processes that put the load on, before and while they do."""

import msgspec

from loadtests.arrivals import Arrivals
from loadtests.results import Process, Segment
from loadtests.scenario import Scenario
from loadtests.shapes import Loop

# Names of locust's custom messages: those that go to the processes,
PLAN, LOAD, ABANDON = "triptych-plan", "triptych-load", "triptych-abandon"
REFUSED = "triptych-refused"
# and those that come from them. JOINED: it hears ours from now on. locust's "ready" comes before it does.
JOINED, PREPARED, BROKEN = "triptych-joined", "triptych-prepared", "triptych-broken"
SAMPLES, DONE = "triptych-samples", "triptych-done"


class Plan(msgspec.Struct, kw_only=True):
    """All that a process has to know. `target` and `dialect` as in `dialects.dialect`.

    `timeout` is in seconds, for a connection and for each silence of the server. `in_flight` is the most
    requests that one process has open; `calibration` the tokens of a word by language; `golden` the bytes of
    a file of golden vectors. `verify`: whether certificates are checked.
    """

    scenario: str
    seed: str
    loop: Loop
    arrivals: Arrivals
    dialect: str
    target: dict[str, str]
    model: str
    key: str | None
    verify: bool
    timeout: float
    in_flight: int
    calibration: dict[str, float]
    golden: bytes | None

    def read_scenario(self) -> Scenario:
        return Scenario.model_validate_json(self.scenario)


class Load(msgspec.Struct, kw_only=True):
    """Segments to go through, one after another, from `delay` seconds after this arrives.

    The process that gets it is number `process` of `processes`.
    """

    number: int
    segments: list[Segment]
    interval: float
    delay: float
    process: int
    processes: int


class Done(msgspec.Struct, kw_only=True):
    """A process has gone through the segments of load `number` and has no request in flight any more.

    `compared` is how many golden vectors it has looked at so far.
    """

    number: int
    processes: list[Process]
    compared: int
