"""Reads files that an operator may replace while the router serves."""

import errno
import os
import stat
from pathlib import Path


def read_regular_file(path: Path, most: int) -> bytes:
    """The content of the regular file `path`. Raises `OSError`, also if it is over `most` bytes.

    A FIFO could block the thread that opens or reads it for ever, and with it the end of the process.
    """
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"over {most >> 20} MiB", str(path))
    return content
