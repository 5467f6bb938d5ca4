"""One of several router processes: `python -m router.serving.child PARENT FD...`, started by `processes`."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence

from router.serving.server import Server, set_up_logging
from router.settings import RouterSettings
from workers.shared.strict_settings import SettingsError, read_settings

PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Serve on the listening sockets that were inherited as the descriptors FD, as long as PARENT lives."""
    parent, *descriptors = map(int, arguments)
    die_with(parent)
    try:
        settings = read_settings(RouterSettings)
        server = Server(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    set_up_logging(settings)
    server.run([socket.socket(fileno=descriptor) for descriptor in descriptors])
    return 0


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent has ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
