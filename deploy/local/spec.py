"""What a child process is: changes when the supervisor has to know more of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Spec:
    """A child process: `argv` with exactly the environment `env`, ready when GET /ready on `port` is 200.

    Children with the same `gate` start one after another, each once the one before it is ready; those
    without start at once. `token` is what it wants to be asked with.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    host: str
    port: int
    gate: str | None = None
    token: str | None = field(default=None, repr=False)
