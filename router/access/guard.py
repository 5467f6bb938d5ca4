"""Authentication of requests, and reloading of the key file when it changes."""

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from triptych.router.access.keys import Key, KeyRing, KeysError, read_keys
from triptych.router.access.limits import Allowance, Memory, Store
from triptych.router.access.limits_file import LimitsFile
from triptych.router.api.pages import PAGE_PATHS
from triptych.router.http import Request
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import SettingsError

log = logging.getLogger(__name__)

# Liveness needs no key. The page has no data of its own, and asks for a key.
OPEN_PATHS = frozenset({"/health", "/live", *PAGE_PATHS})
RELOAD_SECONDS = 1.0


class Guard:
    """Checks API keys; without keys in the settings it admits everyone."""

    def __init__(self, settings: RouterSettings) -> None:
        """Raises `SettingsError`."""
        self._given = settings.api_keys
        self._path = settings.api_keys_file
        self._seen: object = None
        self._ring: KeyRing | None = None
        self._store: Store | None = None
        if not settings.guarded:
            return
        try:
            self._seen = _state_of(self._path)
            self._ring = self._read()
        except KeysError as error:
            raise SettingsError(f"{self._source}: {error}") from None
        try:
            self._store = LimitsFile(settings.limits_file) if settings.limits_file else Memory()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise SettingsError(f"ROUTER_LIMITS_FILE: {error}") from None
            log.error("ROUTER_LIMITS_FILE: %s: this process counts the limits of keys by itself", error)
            self._store = Memory()

    def key_of(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key of a request with `headers`; None without keys. Raises `MissingKey` or `InvalidKey`."""
        return self._ring.find(headers.get(b"authorization")) if self._ring is not None else None

    def admit(self, request: Request) -> Allowance | None:
        """Set the key of the request; returns what it may use, None if there is no limit.

        Raises `MissingKey`, `InvalidKey` or `RequestRateExceeded`.
        """
        key = None if request.path in OPEN_PATHS else self.key_of(request.headers)
        if key is None:
            return None
        request.key = request.memory.key = key.name
        if key.requests_per_minute is None and key.tokens_per_minute is None:
            return None
        assert self._store is not None
        return Allowance(key, self._store, time.monotonic())

    def reload(self) -> None:
        """Read the file if it has changed. An invalid file is logged, and the keys stay."""
        state = _state_of(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            ring = self._read()
        except KeysError as error:
            log.error("%s: %s; the keys are unchanged", self._source, error)
            return
        self._ring = ring
        log.info("%s: reloaded, %d keys in total", self._source, len(ring))

    @property
    def _source(self) -> str:
        return f"ROUTER_API_KEYS_FILE ({self._path})" if self._path else "ROUTER_API_KEYS"

    def _read(self) -> KeyRing:
        keys: tuple[Key, ...] = self._given
        if self._path is not None:
            try:
                keys += read_keys(self._path.read_bytes())
            except OSError as error:
                raise KeysError(f"cannot be read: {error.strerror}") from None
        return KeyRing(keys)

    async def watch(self) -> None:
        """Reload the file whenever it has changed, if there is one."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_SECONDS)
            # In a thread, since the disk may be slow.
            await asyncio.to_thread(self.reload)


def _state_of(path: Path | None) -> object:
    """File version (inode, mtime, size); None if there is no file."""
    if path is not None:
        with contextlib.suppress(OSError):
            state = os.stat(path)
            return state.st_ino, state.st_mtime_ns, state.st_size
    return None
