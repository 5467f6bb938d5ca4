"""What a benchmark leaves behind: the shape of its JSON files."""

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One system under one load; lists hold a value for each round.

    `failures` counts replies that were not a 200 with a body, by status (0: the connection broke).
    `cpu` is in CPU seconds per 1,000 items by group of processes, over all rounds. `elsewhere` and `stolen`
    are the shares of the machine's CPU time that processes outside the measurement, and the hypervisor,
    took meanwhile. `figures` are further values that only some benchmarks have.
    """

    load: str
    system: str
    items_per_second: list[float] = []
    p50_ms: list[float] = []
    p99_ms: list[float] = []
    requests: int = 0
    items: int = 0
    failures: dict[str, int] = {}
    vectors_checked: int = 0
    vectors_wrong: int = 0
    cpu: dict[str, float] = {}
    elsewhere: float = 0.0
    stolen: float = 0.0
    figures: dict[str, list[float]] = {}


class Result(msgspec.Struct, kw_only=True):
    """One benchmark, run once."""

    name: str
    title: str
    quick: bool
    began: str
    seconds: float
    machine: str
    revision: str
    rows: list[Row]

    def row(self, load: str, system: str) -> Row | None:
        """That of a load whose name is `load`, and of a system whose name begins with `system`."""
        return next((row for row in self.rows if row.load == load and row.system.startswith(system)), None)
