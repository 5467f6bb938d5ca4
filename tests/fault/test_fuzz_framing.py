"""Any bytes on a connection: no reply is a 5xx, no connection stays, and nothing is left behind."""

import re
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fault.fuzzing import Target
from triptych.router.serving.turns import TURN_SECONDS

BODY = b'{"input": ["a", "b"], "task": "retrieval.query"}'
LINE = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n"
CHUNKED = LINE + b"transfer-encoding: chunked\r\n\r\n"

sizes = st.sampled_from([b"30", b"0", b"-1", b"", b"g", b"ffffffffffffffffff", b"5;ext=1", b" 5", b"5\r\n"])
headers = st.sampled_from(
    [
        *(b"content-length: %b" % value for value in (b"48", b"0", b"-1", b"1e9", b"99999999999999999999")),
        *(b"transfer-encoding: %b" % value for value in (b"chunked", b"gzip, chunked", b"identity", b"x")),
        *(b"connection: close", b"expect: 100-continue", b"content-encoding: gzip", b"upgrade: h2c"),
        *(b"connection: upgrade", b"a" * 3000 + b": b", b": ", b"\0: \xff", b"host"),
    ]
)
framed = st.builds(
    lambda lines, body: LINE + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body,
    st.lists(headers, max_size=4),
    st.sampled_from([BODY, b"30\r\n" + BODY + b"\r\n0\r\n\r\n", b"", BODY * 2]) | st.binary(max_size=50),
)
chunked = st.builds(
    lambda chunks: CHUNKED + b"".join(size + b"\r\n" + data + b"\r\n" for size, data in chunks),
    st.lists(st.tuples(sizes, st.sampled_from([BODY, b"", b"hello"])), max_size=4),
)
streams = st.lists(framed | chunked | st.binary(max_size=100), min_size=1, max_size=3).map(b"".join)


def answers(target: Target, pieces: list[bytes]) -> bytes:
    """Everything that the router sends back until it closes the connection."""
    url = urlsplit(target.url)
    assert url.hostname is not None
    received = bytearray()
    with socket.create_connection((url.hostname, url.port or 80), timeout=GUARD_SECONDS) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1 << 16):
                received += data
        except TimeoutError:
            raise
        # It may close while this still sends.
        except OSError:
            pass
    return bytes(received)


@pytest.mark.parametrize("turn_seconds", [0.0, TURN_SECONDS])
@settings(max_examples=150)
@given(streams, st.integers(0, 400))
@example(CHUNKED + b"5\r\nhello\r\nnot a size\r\n", 0)
@example(LINE + b"content-length: 48\r\n\r\n" + BODY + b"garbage\r\n\r\n", 0)
def test_any_bytes_leave_nothing_behind(target: Target, turn_seconds: float, data: bytes, cut: int) -> None:
    target.take_turns(turn_seconds)
    received = answers(target, [data[:cut], data[cut:]])
    assert all(int(status) < 500 for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)), received
    assert not received or received.startswith(b"HTTP/1.1 ")
    target.until_idle()
