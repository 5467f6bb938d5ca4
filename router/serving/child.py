"""A child of `processes`: `python -m router.serving.child PARENT FD...`."""

import os
import socket
import sys
from collections.abc import Sequence

from triptych.router.serving.dumpable import hide_memory
from triptych.router.serving.server import Server, set_up_logging
from triptych.router.settings import RouterSettings
from triptych.workers.shared.parent_death import die_with_parent
from triptych.workers.shared.strict_settings import SettingsError, read_settings


def main(arguments: Sequence[str]) -> int:
    """Serve on the listening sockets FD, inherited from the process PARENT, while it lives."""
    parent, *descriptors = map(int, arguments)
    die_with_parent(parent)
    hide_memory()
    try:
        settings = read_settings(RouterSettings)
        set_up_logging(settings)
        server = Server(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    server.run([socket.socket(fileno=descriptor) for descriptor in descriptors])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
