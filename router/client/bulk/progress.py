"""A progress bar with rows, rows per second and time left. Silent if stderr is not a terminal."""

from typing import NoReturn, Self

from tqdm import tqdm


class Bar:
    """Appears at the first call of `progress`, which `run` calls."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def progress(self, rows: int, earlier: int, now: int) -> None:
        """Add progress: all rows, rows done before this run, rows just done."""
        if self._bar is None:
            # Rows of earlier runs do not count for the speed.
            self._bar = tqdm(
                total=rows, initial=earlier, unit="items", unit_scale=True, smoothing=0.1, disable=None
            )
        self._bar.update(now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
