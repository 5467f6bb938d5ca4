"""Discovery: reads the document that lists the workers, from a file or a URL, and DNS, again and again."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx

from triptych.router.pool.srv_records import SrvRecords
from triptych.router.pool.targets import DocumentError, TargetGroup, is_url, read_document
from triptych.router.settings import RouterSettings

log = logging.getLogger(__name__)

# Timeout of one read.
HTTP_SECONDS = 10.0
# Ten thousand workers take one.
MAX_BYTES = 16 << 20

Apply = Callable[[tuple[TargetGroup, ...]], None]


class FileSource:
    """A document in a file. It is read when the file has changed."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None

    async def look(self) -> bytes | None:
        """The file's content, None if it has not changed. Raises `OSError`."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> bytes | None:
        # Reset before reading, so that a file is read again after a failure.
        seen, self._seen = self._seen, None
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            data = None if version == seen else file.read()
        self._seen = version
        return data

    async def close(self) -> None:
        """Nothing is open."""


class HttpSource:
    """A document at a URL, served as Prometheus' `http_sd` asks: status 200, `application/json`."""

    def __init__(self, url: str, token: str | None, refresh_seconds: float) -> None:
        self._url = url
        headers = {
            "Accept": "application/json",
            "X-Prometheus-Refresh-Interval-Seconds": f"{refresh_seconds:g}",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=HTTP_SECONDS,
            follow_redirects=True,
            # The machine's certificates and SSL_CERT_FILE, but no proxies.
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    async def look(self) -> bytes | None:
        """The document. Raises `httpx.HTTPError`, or `DocumentError` for another kind of reply."""
        async with asyncio.timeout(HTTP_SECONDS), self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise DocumentError(f"it answers with status {response.status_code}")
            content_type = response.headers.get("content-type", "none")
            if content_type.partition(";")[0].strip().lower() != "application/json":
                raise DocumentError(f"its content type is {content_type[:100]}, not application/json")
            document = bytearray()
            async for chunk in response.aiter_bytes():
                document += chunk
                if len(document) > MAX_BYTES:
                    raise DocumentError(f"it is over {MAX_BYTES >> 20} MiB")
        return bytes(document)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class Discovery:
    """Calls `apply` with the workers that `source` lists and DNS names, whenever they have changed.

    If the source, its document or DNS is broken, the last good workers stay. `trouble` is the error, None
    if there is none; `looked` is set after the first read.
    """

    def __init__(
        self,
        source: FileSource | HttpSource,
        name: str,
        seconds: float,
        apply: Apply,
        records: SrvRecords | None = None,
    ) -> None:
        self.trouble: str | None = "not read yet"
        self.looked = asyncio.Event()
        self._source = source
        self._name = name
        self._seconds = seconds
        self._apply = apply
        self._records = records or SrvRecords()
        self._unreadable: str | None = None
        self._groups: tuple[TargetGroup, ...] = ()
        self._applied: tuple[TargetGroup, ...] = ()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception("reading %s ended in an unexpected error. This is a bug.", self._name)
                self.looked.set()
                await asyncio.sleep(self._seconds)
        finally:
            await self._source.close()
            await self._records.close()

    async def look(self) -> None:
        """Read once."""
        await self._read()
        groups, unresolved = await self._records.add_to(self._groups)
        self._report(self._unreadable or unresolved)
        if groups != self._applied:
            self._applied = groups
            self._apply(groups)

    async def _read(self) -> None:
        try:
            data = await self._source.look()
            # A broken document that has not changed is still broken.
            if data is not None:
                self._groups = read_document(data)
                self._unreadable = None
        except (OSError, httpx.HTTPError, httpx.InvalidURL, DocumentError) as error:
            self._unreadable = str(error) or type(error).__name__

    def _report(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self.trouble:
            log.error("%s cannot be used, the known workers stay: %s", self._name, trouble)
        elif trouble is None and self.trouble is not None:
            log.info("%s is read", self._name)
        self.trouble = trouble


def source_of(location: str, token: str | None, seconds: float) -> FileSource | HttpSource:
    """The source at `location`: an http(s) URL, otherwise a file."""
    if is_url(location):
        return HttpSource(location, token, seconds)
    return FileSource(location)


def discovery_of(settings: RouterSettings, apply: Apply) -> Discovery | None:
    """The discovery that `settings` name, None if they list the workers themselves."""
    if settings.discovery is None:
        return None
    token = settings.discovery_token.get_secret_value() if settings.discovery_token else None
    source = source_of(settings.discovery, token, settings.discovery_seconds)
    return Discovery(source, "ROUTER_DISCOVERY", settings.discovery_seconds, apply)
