"""What the errors of calls say about the worker."""

import errno

import aiohttp
import pytest

from triptych.router.pool.transport import was_sent


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"), True),
        (aiohttp.ClientOSError(None, "Can not write request body for http://a"), False),
        (aiohttp.ConnectionTimeoutError(), False),
    ],
)
def test_only_whole_requests_count_as_sent(error: Exception, sent: bool) -> None:
    """An input is suspected of a worker's death only if the worker has read it."""
    assert was_sent(error) is sent
