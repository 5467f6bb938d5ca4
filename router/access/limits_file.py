"""The levels of all keys in a file that several router processes on one machine map into their memory.

Under one lock of the kernel's, which goes with its process however that ends. The times in it are those of
the machine's monotonic clock, which begins anew with each boot: a file of another boot is begun anew as well.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from router.access.limits import Levels

# Far more than the keys that are limited at any time, since those that are no longer used stay for a while.
CAPACITY = 16_384

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_MAGIC = b"triptych limits1"
_COUNT = struct.Struct("<q")
_LEVELS = struct.Struct("<dd")
_ID_BYTES = 16
_ENTRY_BYTES = _ID_BYTES + _LEVELS.size
_BOOT = len(_MAGIC) + _COUNT.size
_BOOT_BYTES = 8
_FIRST = _BOOT + _BOOT_BYTES
_SIZE = _FIRST + CAPACITY * _ENTRY_BYTES


class LimitsFile:
    """A `Store` in the file at `path`, which is made where there is none."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, also for a file that is something else."""
        # By path and not inherited: each process needs a lock of its own.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            size, boot = os.fstat(self._file).st_size, _boot()
            if size and (size != _SIZE or os.pread(self._file, len(_MAGIC), 0) != _MAGIC):
                raise OSError(f"{path} is not a file of limits; name one that does not exist")
            if not size or os.pread(self._file, _BOOT_BYTES, _BOOT) != boot:
                os.truncate(self._file, 0)
                os.truncate(self._file, _SIZE)
                os.pwrite(self._file, boot, _BOOT)
                os.pwrite(self._file, _MAGIC, 0)
            self._map = mmap.mmap(self._file, _SIZE)
        except OSError:
            os.close(self._file)
            raise
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._places: dict[bytes, int] = {}

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._file)

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        """See `Store`."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            place = self._place(key[:_ID_BYTES])
            levels = change(Levels(*_LEVELS.unpack_from(self._map, place)))
            _LEVELS.pack_into(self._map, place, *levels)
            return levels
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _place(self, key: bytes) -> int:
        """Where the key's levels are; where it has none yet, full ones are made."""
        place = self._places.get(key)
        if place is not None and self._map[place - _ID_BYTES : place] == key:
            return place
        [count] = _COUNT.unpack_from(self._map, len(_MAGIC))
        for at in range(_FIRST, _FIRST + count * _ENTRY_BYTES, _ENTRY_BYTES):
            if self._map[at : at + _ID_BYTES] == key:
                break
        else:
            at = self._free(count)
            self._map[at : at + _ENTRY_BYTES] = key + _LEVELS.pack(0.0, 0.0)
        self._places[key] = at + _ID_BYTES
        return at + _ID_BYTES

    def _free(self, count: int) -> int:
        """An entry never used, or of all the one that is, or will be, full again first."""
        if count < CAPACITY:
            _COUNT.pack_into(self._map, len(_MAGIC), count + 1)
            return _FIRST + count * _ENTRY_BYTES
        places = range(_FIRST, _SIZE, _ENTRY_BYTES)
        return min(places, key=lambda at: max(_LEVELS.unpack_from(self._map, at + _ID_BYTES)))


def _boot() -> bytes:
    """What tells this boot of this machine from others; nothing where the system does not say."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))[:_BOOT_BYTES]
    except (OSError, ValueError):
        return bytes(_BOOT_BYTES)
