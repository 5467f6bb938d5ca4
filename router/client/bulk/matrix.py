"""The vectors on disk: a .npy file whose rows can be written in any order."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from triptych.router.client.bulk.problems import Refused

Array = npt.NDArray[Any]


class Matrix:
    """A .npy file of `rows` x `width` values, with positioned reads and writes.

    Not memory-mapped, because mapped pages count as memory of the process.
    """

    def __init__(self, path: Path, rows: int, width: int, dtype: np.dtype[Any], offset: int) -> None:
        self.rows, self.width, self.dtype = rows, width, dtype
        self.row_bytes = width * dtype.itemsize
        self._offset = offset
        self._file = os.open(path, os.O_RDWR)

    @classmethod
    def create(cls, path: Path, rows: int, width: int, dtype: np.dtype[Any]) -> "Matrix":
        """Create a file of full size. Raises `Refused` if the disk has no room."""
        size = rows * width * dtype.itemsize
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise Refused(f"{path.parent} has {free / 1e9:.1f} GB free; the vectors need {size / 1e9:.1f} GB")
        header = {
            "descr": dtype.str,
            "fortran_order": False,
            "shape": (rows, width),
        }
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            offset = file.tell()
            file.truncate(offset + size)
            file.flush()
            os.fsync(file.fileno())
        return cls(path, rows, width, dtype, offset)

    @classmethod
    def open(cls, path: Path) -> "Matrix":
        """Open an existing file. Raises `Refused` if it is incomplete."""
        try:
            # The map reads the header and checks the length.
            there = np.load(path, mmap_mode="r")
            rows, width = there.shape
        except (OSError, ValueError) as error:
            raise Refused(f"cannot read the vectors so far in {path}: {error}") from None
        return cls(path, rows, width, there.dtype, there.offset)

    def write(self, start: int, vectors: Array) -> None:
        """Write rows from `start` on, and wait until they are on disk."""
        if vectors.shape[1] != self.width:
            raise Refused(
                f"the server returned vectors of {vectors.shape[1]} values; so far they had {self.width}"
            )
        data = np.ascontiguousarray(vectors, self.dtype).reshape(-1).view(np.uint8).data
        at = self._offset + start * self.row_bytes
        while data:
            written = os.pwrite(self._file, data, at)
            data, at = data[written:], at + written
        os.fdatasync(self._file)

    def read(self, start: int, stop: int) -> Array:
        """Rows `start` to `stop` (exclusive)."""
        data = os.pread(self._file, (stop - start) * self.row_bytes, self._offset + start * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.width)

    def blank(self, rows: Sequence[int]) -> None:
        """Fill rows with NaN."""
        nan = np.full(self.width, np.nan, self.dtype).tobytes()
        for row in rows:
            os.pwrite(self._file, nan, self._offset + row * self.row_bytes)
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
