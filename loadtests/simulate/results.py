"""What the experiments leave behind: the shape of the JSON file. Times in seconds, shares from 0 to 1."""

import msgspec

from loadtests.simulate.control import Needs


class Steady(msgspec.Struct, kw_only=True):
    """One run under a constant load. `p99_error` is half of the 95 % confidence interval."""

    engine: str
    inputs: str
    replicas: int
    routers: int
    lanes: int
    learned: bool
    load: float
    rate: float
    simulated_seconds: float
    requests: int
    served: int
    refused: int
    p50: float
    p99: float
    p99_error: float
    busy: float
    items_per_batch: float


class Moment(msgspec.Struct):
    """Some seconds of a run: replicas that the load would fill, that serve, that are paid for."""

    at: float
    asked: float
    serving: float
    held: float
    p99: float
    late: float


class Scaled(msgspec.Struct, kw_only=True):
    """One run with autoscaling. `late` is the share not served within SLO_SECONDS, refused ones included.

    `changed` says what of the settings, or of the start, is not as in the others. `replica_hours` count from
    a replica's start to its end; `full_hours` is what full replicas would take.
    """

    curve: str
    rule: str
    changed: str
    settings: dict[str, float]
    tokens_held: float | None
    start_seconds: float
    requests: int
    served: int
    refused: int
    expired: int
    p50: float
    p99: float
    late: float
    most_replicas: int
    replica_hours: float
    full_hours: float
    moments: list[Moment]


class Held(msgspec.Struct):
    """What a replica has, waiting and running, at a constant load: why not to scale by that."""

    load: float
    tokens: float
    p99: float


class Cost(msgspec.Struct):
    """CPU seconds of the real pool for one request, on this machine."""

    replicas: int
    seconds: float


class Results(msgspec.Struct, kw_only=True):
    """All of one run of the command."""

    quick: bool
    seed: int
    revision: str
    machine: str
    load: list[Steady] = []
    routers: list[Steady] = []
    started: list[Steady] = []
    held: list[Held] = []
    scaled: list[Scaled] = []
    cost: list[Cost] = []
    control: list[Needs] = []
