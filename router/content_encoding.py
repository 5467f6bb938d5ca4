"""`Content-Encoding` of request bodies: decompresses gzip and deflate in small pieces."""

import zlib
from collections.abc import Iterator

from triptych.router.errors import Invalid, UnsupportedEncoding

# Limits of one step. A step takes well under a millisecond, and a body that grows a thousandfold is refused
# before it takes memory.
INPUT_BYTES = 16 << 10
OUTPUT_BYTES = 256 << 10

# `wbits` of zlib: 31 reads gzip, 15 zlib-wrapped deflate, -15 raw deflate, which some clients send.
_GZIP, _ZLIB, _RAW = 31, 15, -15


def decoder_for(content_encoding: bytes) -> "Decoder | None":
    """The decoder for a `Content-Encoding` header, None without compression. Raises `UnsupportedEncoding`."""
    name = content_encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding(f"Content-Encoding {name[:100]!r}: send gzip, deflate or no encoding")
    return Decoder(name)


class Decoder:
    """Decoder of one body. Its methods raise `Invalid` when the stream is broken."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = b""
        self._stream = None if name == "deflate" else zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress `data` in steps; the caller may do other work between them, or stop."""
        for at in range(0, len(data), INPUT_BYTES):
            try:
                yield from self._decompress(data[at : at + INPUT_BYTES])
            except zlib.error:
                raise self._invalid("is broken") from None

    def finish(self) -> None:
        """Check that the stream is complete."""
        if self._stream is None or not self._stream.eof:
            raise self._invalid("ends too early")

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            # The first two bytes tell zlib-wrapped deflate from raw deflate (RFC 1950).
            data = self._start = self._start + data
            if len(data) < 2:
                return
            wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if wrapped else _RAW)
        more = True
        while more:
            if self._stream.eof:
                # The next member of a gzip file; some programs put zeros between or after members.
                data = data.lstrip(b"\0")
                if not data:
                    break
                if self._name == "deflate":
                    raise self._invalid("has bytes after its end")
                self._stream = zlib.decompressobj(_GZIP)
            piece = self._stream.decompress(data, OUTPUT_BYTES)
            # After a full piece the stream may hold more.
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            more = bool(data) or (len(piece) == OUTPUT_BYTES and not self._stream.eof)
            if piece:
                yield piece
        # Give way between empty members too.
        yield b""

    def _invalid(self, what: str) -> Invalid:
        return Invalid.field("body", f"the {self._name} stream {what}", "content_encoding")
