"""`triptych router`: reads the settings and serves until a signal.

`Processes` starts its children as `python -m triptych.router PARENT FD...`.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence

from triptych.router.serving.dumpable import hide_memory
from triptych.router.serving.listening import listen
from triptych.router.serving.processes import Processes
from triptych.router.serving.server import Server, set_up_logging
from triptych.router.settings import RouterSettings
from triptych.workers.shared.parent_death import die_with_parent
from triptych.workers.shared.strict_settings import SettingsError, read_settings


def main(inherited: Sequence[int] = ()) -> int:
    """Serve on new listening sockets, or on the `inherited` descriptors of the parent's.

    Returns the exit status: 78 (EX_CONFIG) for a wrong setting.
    """
    hide_memory()
    try:
        settings = read_settings(RouterSettings)
        set_up_logging(settings)
        server = Server(settings) if inherited or settings.processes == 1 else None
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    try:
        sockets = [socket.socket(fileno=descriptor) for descriptor in inherited]
        sockets = sockets or listen(settings.host, settings.port)
    except OSError as error:
        text = (
            f"cannot listen on {settings.host}:{settings.port} ({error}): change ROUTER_HOST or ROUTER_PORT"
        )
        print(text, file=sys.stderr)
        return 1
    if server is None:
        return asyncio.run(Processes(settings.processes, sockets, settings.drain_notice_seconds).run())
    server.run(sockets)
    return 0


if __name__ == "__main__":
    parent_and_descriptors = [int(argument) for argument in sys.argv[1:]]
    if parent_and_descriptors:
        die_with_parent(parent_and_descriptors[0])
    sys.exit(main(parent_and_descriptors[1:]))
