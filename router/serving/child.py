"""One of several router processes: `python -m router.serving.child PARENT FD...`, started by `processes`."""

import os
import socket
import sys
from collections.abc import Sequence

from router.serving.server import Server, set_up_logging
from router.settings import RouterSettings
from workers.shared.parent_death import die_with_parent
from workers.shared.strict_settings import SettingsError, read_settings


def main(arguments: Sequence[str]) -> int:
    """Serve on the listening sockets that were inherited as the descriptors FD, as long as PARENT lives."""
    parent, *descriptors = map(int, arguments)
    die_with_parent(parent)
    try:
        settings = read_settings(RouterSettings)
        server = Server(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    set_up_logging(settings)
    server.run([socket.socket(fileno=descriptor) for descriptor in descriptors])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
