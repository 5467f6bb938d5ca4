"""Images as inputs."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, repr=False)
class Image:
    """An image to embed or rank. Create it with one of the `from_` methods.

    The server accepts PNG, JPEG, WebP and GIF. A file is read when it is sent, so a long list of images needs
    no memory.
    """

    source: bytes | Path | str

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Image":
        """The image in a file."""
        return cls(Path(path))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Image":
        """An image from the bytes of its file."""
        return cls(bytes(data))

    @classmethod
    def from_url(cls, url: str) -> "Image":
        """An image at an http(s) URL, which the server fetches, or a `data:...;base64,` URI."""
        url = url.strip()
        if not url.lower().startswith(("http://", "https://", "data:")):
            raise ValueError(f"not an http(s) URL or a data: URI: {url[:100]!r}")
        return cls(url)

    def on_the_wire(self) -> str:
        """The URL, or the bytes as base64. Raises OSError if the file cannot be read."""
        match self.source:
            case str(url):
                return url
            case Path() as path:
                return base64.b64encode(path.read_bytes()).decode("ascii")
            case data:
                return base64.b64encode(data).decode("ascii")

    def wire_length(self) -> int:
        """Length of `on_the_wire`, without reading the file. Raises OSError if there is no such file."""
        match self.source:
            case str(url):
                return len(url)
            case Path() as path:
                return _base64_length(path.stat().st_size)
            case data:
                return _base64_length(len(data))

    def __repr__(self) -> str:
        what = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else str(self.source)[:100]
        return f"Image({what})"


def _base64_length(length: int) -> int:
    return (length + 2) // 3 * 4
