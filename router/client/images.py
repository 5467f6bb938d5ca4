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
        if isinstance(self.source, str):
            return self.source
        data = self.source.read_bytes() if isinstance(self.source, Path) else self.source
        return base64.b64encode(data).decode("ascii")

    def wire_length(self) -> int:
        """Length of `on_the_wire`, without reading the file. Raises OSError if there is no such file."""
        if isinstance(self.source, str):
            return len(self.source)
        size = self.source.stat().st_size if isinstance(self.source, Path) else len(self.source)
        return (size + 2) // 3 * 4

    def __repr__(self) -> str:
        what = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else str(self.source)[:100]
        return f"Image({what})"
