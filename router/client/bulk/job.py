"""What a bulk run is asked to do, and whether that can be done: changes when an option comes or goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from router.client.bulk.problems import Refused

if TYPE_CHECKING:
    from router.api.schema import Task


@dataclass(frozen=True)
class Job:
    """What to embed, how, and where to; `id` is a column that a .parquet is to have as well.

    Beside OUT lie, until it is done, OUT.partial (the vectors so far) and OUT.journal (which batches those
    are); afterwards OUT.failed.jsonl, when rows failed.
    """

    source: Path
    out: Path
    column: str = "text"
    id: str | None = None
    task: "Task | None" = None
    dimensions: int | None = None
    truncate: bool | None = None
    batch: int = 256
    dtype: Literal["float32", "float16"] = "float32"
    concurrency: int = 8
    skip: bool = False

    @property
    def partial(self) -> Path:
        """The vectors so far."""
        return self.beside("partial")

    @property
    def journal(self) -> Path:
        """Which batches are done."""
        return self.beside("journal")

    @property
    def start_over(self) -> str:
        """What to tell somebody who has to."""
        return f"start over: remove {self.journal} and {self.partial}"

    def beside(self, ending: str) -> Path:
        """The file beside the output whose name has `ending` behind it."""
        return self.out.with_name(f"{self.out.name}.{ending}")

    def about(self, digest: str, rows: int) -> dict[str, Any]:
        """What a run must have in common with the one it continues."""
        names = ("column", "id", "task", "dimensions", "truncate", "batch", "dtype")
        return {"input": digest, "rows": rows} | {name: getattr(self, name) for name in names}

    def count(self, batches: set[int], rows: int) -> int:
        """How many rows are in `batches`, when there are `rows` in all."""
        last = (rows - 1) // self.batch
        short = self.batch * (last + 1) - rows if last in batches else 0
        return len(batches) * self.batch - short

    def check(self) -> None:
        """Raise `Refused` for what cannot be done, before any time is spent on it."""
        if not self.source.is_file():
            raise Refused(f"{self.source} is not a file")
        if self.out.suffix not in (".npy", ".parquet"):
            raise Refused(f"{self.out}: the output's name has to end in .npy or .parquet")
        if not self.out.parent.is_dir():
            raise Refused(f"{self.out.parent} is not a folder")
        if self.out.suffix == ".parquet":
            # Says now, not at the end, that pyarrow is missing.
            from router.client.bulk import parquet  # noqa: F401
        elif self.id is not None:
            raise Refused("a .npy file has no room for ids; write a .parquet file")
        # With a journal beside it, it may be what a crash just before the end left.
        if self.out.exists() and not self.journal.exists():
            raise Refused(f"{self.out} is there already; remove it or name another")
