"""The options of a bulk run, and their checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from triptych.router.client.bulk.problems import Refused
from triptych.router.client.requests import Task


@dataclass(frozen=True)
class Job:
    """What to embed, how, and where to. `id` is a column to copy into a .parquet output.

    Until the run is done, OUT.partial has the vectors so far and OUT.journal the finished batches. Afterwards
    OUT.failed.jsonl lists failed rows, if any.
    """

    source: Path
    out: Path
    column: str = "text"
    id: str | None = None
    model: str | None = None
    task: Task | None = None
    dimensions: int | None = None
    truncate: bool | None = None
    batch: int = 256
    dtype: Literal["float32", "float16"] = "float32"
    concurrency: int = 8
    skip: bool = False

    @property
    def partial(self) -> Path:
        """File of the vectors so far."""
        return self.beside("partial")

    @property
    def journal(self) -> Path:
        """File that lists the finished batches."""
        return self.beside("journal")

    @property
    def start_over(self) -> str:
        """How a user starts the run again from the beginning."""
        return f"start over: remove {self.journal} and {self.partial}"

    def beside(self, ending: str) -> Path:
        """The file OUT.`ending`."""
        return self.out.with_name(f"{self.out.name}.{ending}")

    @property
    def options(self) -> dict[str, Any]:
        """The options of each request."""
        return {name: getattr(self, name) for name in ("model", "task", "dimensions", "truncate")}

    def about(self, digest: str, rows: int) -> dict[str, Any]:
        """Everything that must not change when a run continues."""
        names = ("column", "id", "batch", "dtype")
        return {"input": digest, "rows": rows, **self.options} | {name: getattr(self, name) for name in names}

    def check(self) -> None:
        """Raise `Refused` if the run cannot work, before it costs time."""
        if not self.source.is_file():
            raise Refused(f"{self.source} is not a file")
        if self.out.suffix not in (".npy", ".parquet"):
            raise Refused(f"{self.out}: the output's name must end in .npy or .parquet")
        if not self.out.parent.is_dir():
            raise Refused(f"{self.out.parent} is not a folder")
        if self.out.suffix == ".parquet":
            # Raises now, not at the end, if pyarrow is missing.
            from triptych.router.client.bulk import parquet  # noqa: F401
        elif self.id is not None:
            raise Refused("a .npy file cannot hold ids; write a .parquet file")
        # With a journal, it may come from a run that crashed just before its end.
        if self.out.exists() and not self.journal.exists():
            raise Refused(f"{self.out} exists already; remove it or name another")
