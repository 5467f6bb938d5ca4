"""The JSON files of a benchmark."""

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One system under one load. Lists hold a value for each round.

    `failures` counts replies other than a 200 with a body, by status (0: the connection broke).
    `cpu` is CPU seconds per 1,000 items by group of processes. `elsewhere` and `stolen` are the shares of
    the machine's CPU time taken by other processes and by the hypervisor. `figures` are values that only
    some benchmarks have.
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

    def fail(self, kind: str, count: int = 1) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + count


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
