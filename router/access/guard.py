"""Authentication of requests, and reloading of the key file when it changes."""

import asyncio
import errno
import logging
import time
from collections.abc import Mapping

from triptych.router.access.keys import Key, KeyRing, KeysError, read_keys
from triptych.router.access.limits import Allowance, Memory, Store
from triptych.router.access.limits_file import LimitsFile
from triptych.router.api.pages import PAGE_PATHS
from triptych.router.http import Request
from triptych.router.regular_files import read_regular_file
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import SettingsError

log = logging.getLogger(__name__)

# Liveness needs no key. The page has no data of its own, and asks for a key.
OPEN_PATHS = frozenset({"/health", "/live", *PAGE_PATHS})
RELOAD_SECONDS = 1.0
# A hundred thousand keys take 10 MiB.
MAX_BYTES = 64 << 20


class Guard:
    """Checks API keys; without keys in the settings it admits all requests."""

    def __init__(self, settings: RouterSettings) -> None:
        """Raises `SettingsError`."""
        self._given = settings.api_keys
        self._path = settings.api_keys_file
        # The content of the file, or why it cannot be read.
        self._seen: bytes | str = b""
        self._ring: KeyRing | None = None
        self._store: Store = Memory()
        if not settings.guarded:
            return
        try:
            self._seen = self._content()
            self._ring = self._ring_of(self._seen)
        except KeysError as error:
            raise SettingsError(f"{self._source}: {error}") from None
        try:
            if settings.limits_file:
                self._store = LimitsFile(settings.limits_file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise SettingsError(f"ROUTER_LIMITS_FILE: {error}") from None
            log.error("ROUTER_LIMITS_FILE: %s: this process counts the limits of keys by itself", error)

    def key_of(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key of a request with `headers`; None without keys. Raises `MissingKey` or `InvalidKey`."""
        return self._ring.find(headers.get(b"authorization")) if self._ring is not None else None

    def admit(self, request: Request) -> None:
        """Set the key of the request, and what it may use if there is a limit.

        Raises `MissingKey`, `InvalidKey` or `RequestRateExceeded`.
        """
        key = None if request.path in OPEN_PATHS else self.key_of(request.headers)
        if key is None:
            return
        request.key = request.memory.key = key.name
        if key.requests_per_minute is None and key.tokens_per_minute is None:
            return
        request.allowance = Allowance(key, self._store)
        request.allowance.take_request(time.monotonic())

    def reload(self) -> None:
        """Read the file if it has changed. An invalid file is logged, and the keys stay."""
        content = self._content()
        if content == self._seen:
            return
        self._seen = content
        try:
            self._ring = self._ring_of(content)
        except KeysError as error:
            log.error("%s: %s; the keys are unchanged", self._source, error)
        else:
            log.info("%s: reloaded, %d keys in total", self._source, len(self._ring))

    @property
    def _source(self) -> str:
        return f"ROUTER_API_KEYS_FILE ({self._path})" if self._path else "ROUTER_API_KEYS"

    def _content(self) -> bytes | str:
        """The content of the file, `[]` without one; a text says why it cannot be read."""
        try:
            return read_regular_file(self._path, MAX_BYTES) if self._path else b"[]"
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    def _ring_of(self, content: bytes | str) -> KeyRing:
        """The keys of the settings and of the file. Raises `KeysError`."""
        if isinstance(content, str):
            raise KeysError(content)
        return KeyRing((*self._given, *read_keys(content)))

    async def watch(self) -> None:
        """Reload the file whenever it has changed, if there is one."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_SECONDS)
            # In a thread, since the disk may be slow.
            await asyncio.to_thread(self.reload)
