"""Space for the metrics files that the router processes on one port share.

prometheus-client maps them into memory. Writing a mapped file on a full disk ends the process (SIGBUS), so
the space is reserved first. Uses the names of prometheus-client's files and `values.get_value_class`; tested
with version 0.26.
"""

import logging
import os
from functools import partial
from pathlib import Path

from prometheus_client import values

from triptych.router.observe.metrics import SHARED_FOLDER

log = logging.getLogger(__name__)

# Room for thousands of series. If there are more, prometheus-client extends the file without reserving.
FILE_BYTES = 1 << 20
_KINDS = ("counter", "gauge_livesum", "histogram")


def reserve_shared_files() -> None:
    """Reserve the files of this process; without space for them it keeps its metrics to itself.

    Call it before metrics are made. Without a shared folder it does nothing.
    """
    folder = os.environ.get(SHARED_FOLDER)
    if folder is None:
        return
    paths = [Path(folder, f"{kind}_{os.getpid()}.db") for kind in _KINDS]
    try:
        for path in paths:
            with open(path, "ab", opener=partial(os.open, mode=0o600)) as file:
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
    except OSError as error:
        log.error(
            "no space for metrics in %s (%s): this process reports its own metrics only",
            folder,
            error.strerror,
        )
        for path in paths:
            path.unlink(missing_ok=True)
        del os.environ[SHARED_FOLDER]
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
