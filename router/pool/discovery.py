"""Keeps looking at a document that says which workers there are: a file, or an address that serves it."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx

from router.pool.targets import DocumentError, TargetGroup, is_url, read_document

log = logging.getLogger(__name__)

# A source that is slower than this has not answered.
HTTP_SECONDS = 10.0

Apply = Callable[[tuple[TargetGroup, ...]], None]


class FileSource:
    """A document in a file, which is read when it is another file, or was written to."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None

    async def look(self) -> bytes | None:
        """What is in it, None when that is what was in it the last time. Raises `OSError`."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> bytes | None:
        # Forgotten until it was read, so that a file which could not be is news when it can be again.
        seen, self._seen = self._seen, None
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            data = None if version == seen else file.read()
        self._seen = version
        return data

    async def close(self) -> None:
        """Nothing is held open."""


class HttpSource:
    """A document that is served by the rules of Prometheus' `http_sd`: status 200, `application/json`."""

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
            # What the machine trusts, and what SSL_CERT_FILE names, but no proxies.
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    async def look(self) -> bytes | None:
        """What it serves now. Raises `httpx.HTTPError`, or `DocumentError` for what is no document."""
        async with asyncio.timeout(HTTP_SECONDS):
            response = await self._client.get(self._url)
        if response.status_code != 200:
            raise DocumentError(f"it answers with status {response.status_code}")
        content_type = response.headers.get("content-type", "none")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise DocumentError(f"it is served as {content_type[:100]}, not as application/json")
        return response.content

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class Discovery:
    """Calls `apply` with the workers that `source` names, each time that it has been looked at and read.

    Whatever is wrong with the source or its document, what was applied last stays. `trouble` says what it
    is, None while all is well; `looked` is set after the first look.
    """

    def __init__(self, source: FileSource | HttpSource, name: str, seconds: float, apply: Apply) -> None:
        self.trouble: str | None = "not looked at yet"
        self.looked = asyncio.Event()
        self._source = source
        self._name = name
        self._seconds = seconds
        self._apply = apply

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception(
                        "looking at %s ended in an error nobody foresaw. This is a bug.", self._name
                    )
                self.looked.set()
                await asyncio.sleep(self._seconds)
        finally:
            await self._source.close()

    async def look(self) -> None:
        """Look once."""
        try:
            data = await self._source.look()
            if data is None:
                # A broken document that has not changed is still broken.
                return
            groups = read_document(data)
        except (OSError, httpx.HTTPError, httpx.InvalidURL, DocumentError) as error:
            trouble = str(error) or type(error).__name__
            if trouble != self.trouble:
                log.error("%s names no workers, those known stay: %s", self._name, trouble)
            self.trouble = trouble
            return
        if self.trouble is not None:
            log.info("%s names workers", self._name)
        self.trouble = None
        self._apply(groups)


def source_of(location: str, token: str | None, seconds: float) -> FileSource | HttpSource:
    """The source that a setting names: an http(s) address, or else a file."""
    if is_url(location):
        return HttpSource(location, token, seconds)
    return FileSource(location)
