"""Rate limits shared by the router processes on one machine, in a memory-mapped file.

The file's space is reserved first, because writing a mapped file on a full disk ends the process (SIGBUS). A
file lock (`lockf`) makes changes atomic; the kernel releases it when its process ends. Times are of the
monotonic clock, which restarts with each boot, so a file from an earlier boot is reset.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from triptych.router.access.limits import Levels

# More than all keys in use, since old ones are kept for a while.
CAPACITY = 16_384

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_MAGIC = b"triptych limits1"
_COUNT = struct.Struct("<q")
_LEVELS = struct.Struct("<dd")
_ID_BYTES = 16
_ENTRY_BYTES = _ID_BYTES + _LEVELS.size
_BOOT = len(_MAGIC) + _COUNT.size
_BOOT_BYTES = 8
_FIRST = _BOOT + _BOOT_BYTES


class LimitsFile:
    """A `Store` in the file at `path`, which is created if it does not exist.

    Once it holds `capacity` keys, a new key replaces the one whose buckets are full again first.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY, boot_id: Path = BOOT_ID) -> None:
        """Raises `OSError`, also if `path` is a file of another kind."""
        self._capacity = capacity
        size_wanted = _FIRST + capacity * _ENTRY_BYTES
        # Each process opens the file itself, since locks are not inherited.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            size, boot = os.fstat(self._file).st_size, _boot(boot_id)
            if size and (size != size_wanted or os.pread(self._file, len(_MAGIC), 0) != _MAGIC):
                raise OSError(f"{path} is not a limits file; name one that does not exist")
            if not size or os.pread(self._file, _BOOT_BYTES, _BOOT) != boot:
                os.truncate(self._file, 0)
                self._reserve(size_wanted)
                os.pwrite(self._file, boot, _BOOT)
                os.pwrite(self._file, _MAGIC, 0)
            else:
                self._reserve(size_wanted)
            self._map = mmap.mmap(self._file, size_wanted)
        except OSError:
            os.close(self._file)
            raise
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._offsets: dict[bytes, int] = {}

    def _reserve(self, size: int) -> None:
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError:
            # Otherwise the unfinished file would be refused later as a file of another kind.
            if os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
                os.truncate(self._file, 0)
            raise

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        """See `Store`."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            offset = self._offset(key[:_ID_BYTES])
            levels = change(Levels(*_LEVELS.unpack_from(self._map, offset)))
            _LEVELS.pack_into(self._map, offset, *levels)
            return levels
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _offset(self, key: bytes) -> int:
        """Offset of the key's levels; a new key gets full buckets."""
        offset = self._offsets.get(key)
        if offset is not None and self._map[offset - _ID_BYTES : offset] == key:
            return offset
        [count] = _COUNT.unpack_from(self._map, len(_MAGIC))
        for at in range(_FIRST, _FIRST + count * _ENTRY_BYTES, _ENTRY_BYTES):
            if self._map[at : at + _ID_BYTES] == key:
                break
        else:
            at = self._free(count)
            self._map[at : at + _ENTRY_BYTES] = key + _LEVELS.pack(0.0, 0.0)
        self._offsets[key] = at + _ID_BYTES
        return at + _ID_BYTES

    def _free(self, count: int) -> int:
        """Offset of an unused entry, or of the one whose buckets are full again first."""
        if count < self._capacity:
            _COUNT.pack_into(self._map, len(_MAGIC), count + 1)
            return _FIRST + count * _ENTRY_BYTES
        offsets = range(_FIRST, _FIRST + self._capacity * _ENTRY_BYTES, _ENTRY_BYTES)
        return min(offsets, key=lambda at: max(_LEVELS.unpack_from(self._map, at + _ID_BYTES)))


def _boot(boot_id: Path) -> bytes:
    """An id of this boot; zeros if the system has none."""
    try:
        return bytes.fromhex(boot_id.read_text().strip().replace("-", ""))[:_BOOT_BYTES]
    except (OSError, ValueError):
        return bytes(_BOOT_BYTES)
