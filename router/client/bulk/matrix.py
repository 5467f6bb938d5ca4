"""The vectors on disk: a .npy file whose rows can be written in any order."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from triptych.router.client.bulk.problems import Refused

Array = npt.NDArray[Any]


class Matrix:
    """A .npy file of `rows` x `width` values.

    Not memory-mapped, because mapped pages count as memory of the process.
    """

    def __init__(self, path: Path) -> None:
        """Raises `Refused` if the file is incomplete."""
        try:
            # The map reads the header and checks the length.
            there = np.load(path, mmap_mode="r")
            self.rows, self.width = there.shape
        except (OSError, ValueError) as error:
            raise Refused(f"cannot read the vectors so far in {path}: {error}") from None
        self.dtype: np.dtype[Any] = there.dtype
        self.row_bytes = self.width * self.dtype.itemsize
        self._path, self._offset = path, there.offset

    @classmethod
    def create(cls, path: Path, rows: int, width: int, dtype: np.dtype[Any], copies: int) -> "Matrix":
        """Create a file of full size. Raises `Refused` if the disk has no room for `copies` of it."""
        size = copies * rows * width * dtype.itemsize
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise Refused(f"{path.parent} has {free / 1e9:.1f} GB free; the vectors need {size / 1e9:.1f} GB")
        np.lib.format.open_memmap(path, "w+", dtype, (rows, width))  # type: ignore[no-untyped-call]
        return cls(path)

    def write(self, vectors: Array, starts: Iterable[int]) -> None:
        """Write `vectors` to the rows from each of `starts` on, and wait until they are on disk."""
        if vectors.shape[1] != self.width:
            raise Refused(
                f"the server returned vectors of {vectors.shape[1]} values; so far they had {self.width}"
            )
        data = vectors.astype(self.dtype).tobytes()
        with self._path.open("r+b") as file:
            for start in starts:
                file.seek(self._offset + start * self.row_bytes)
                file.write(data)
            file.flush()
            os.fdatasync(file.fileno())

    def read(self, start: int, stop: int) -> Array:
        """Rows `start` to `stop` (exclusive)."""
        offset = self._offset + start * self.row_bytes
        values = np.fromfile(self._path, self.dtype, (stop - start) * self.width, offset=offset)
        return values.reshape(-1, self.width)
