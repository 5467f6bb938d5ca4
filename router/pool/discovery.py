"""Discovery: reads the document that lists the workers, from a file or a URL, and DNS, again and again."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import SecretStr

from triptych.router.pool.srv_records import SrvRecords
from triptych.router.pool.targets import DocumentError, TargetGroup, is_url, read_document
from triptych.router.regular_files import read_regular_file

log = logging.getLogger(__name__)

# Timeout of one read.
HTTP_SECONDS = 10.0
# Ten thousand workers take 1 MiB.
MAX_BYTES = 16 << 20

Apply = Callable[[tuple[TargetGroup, ...]], None]


class Source:
    """A document in the file or at the http(s) URL `location`.

    It is fetched as Prometheus' `http_sd` asks: status 200, `application/json`.
    """

    def __init__(self, location: str, token: SecretStr | None, refresh_seconds: float) -> None:
        self._location = location
        self._client: httpx.AsyncClient | None = None
        if not is_url(location):
            return
        headers = {
            "Accept": "application/json",
            "X-Prometheus-Refresh-Interval-Seconds": f"{refresh_seconds:g}",
        }
        if token:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=HTTP_SECONDS,
            follow_redirects=True,
            # The machine's certificates and SSL_CERT_FILE, but no proxies.
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    async def read(self) -> bytes:
        """The document. Raises `OSError`, `httpx.HTTPError`, or `DocumentError` for another kind of reply."""
        if self._client is None:
            return await asyncio.to_thread(read_regular_file, Path(self._location), MAX_BYTES)
        async with asyncio.timeout(HTTP_SECONDS), self._client.stream("GET", self._location) as response:
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
        if self._client is not None:
            await self._client.aclose()


class Discovery:
    """Calls `apply` with the workers that `source` lists and DNS names, whenever they have changed.

    If the source, its document or DNS is broken, the last good workers stay. `trouble` is the error, None
    without one; `looked` is set after the first read.
    """

    def __init__(
        self, source: Source, seconds: float, apply: Apply, records: SrvRecords | None = None
    ) -> None:
        self.trouble: str | None = "not read yet"
        self.looked = asyncio.Event()
        self._source = source
        self._seconds = seconds
        self._apply = apply
        self._records = records or SrvRecords()
        self._document: bytes | None = None
        self._groups: tuple[TargetGroup, ...] = ()
        self._applied: tuple[TargetGroup, ...] = ()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception("reading ROUTER_DISCOVERY ended in an unexpected error. This is a bug.")
                self.looked.set()
                await asyncio.sleep(self._seconds)
        finally:
            await self._source.close()
            await self._records.close()

    async def look(self) -> None:
        """Read once."""
        unreadable = await self._read()
        groups, unresolved = await self._records.add_to(self._groups)
        trouble = unreadable or unresolved
        if trouble and trouble != self.trouble:
            log.error("ROUTER_DISCOVERY cannot be used, the known workers stay: %s", trouble)
        elif self.trouble and not trouble:
            log.info("ROUTER_DISCOVERY is read")
        self.trouble = trouble
        if groups != self._applied:
            self._applied = groups
            self._apply(groups)

    async def _read(self) -> str | None:
        """Read the document; returns what went wrong."""
        try:
            document = await self._source.read()
            if document != self._document:
                self._groups = read_document(document)
                self._document = document
        except (OSError, httpx.HTTPError, httpx.InvalidURL, DocumentError) as error:
            return str(error) or type(error).__name__
        return None
