"""`triptych router`: reads the settings and serves until a signal."""

import asyncio
import os
import sys

from triptych.router.serving.dumpable import hide_memory
from triptych.router.serving.listening import listen
from triptych.router.serving.processes import Processes
from triptych.router.serving.server import Server, set_up_logging
from triptych.router.settings import RouterSettings
from triptych.workers.shared.strict_settings import SettingsError, read_settings


def main() -> int:
    """Serve. Returns the exit status: 78 (EX_CONFIG) for a wrong setting."""
    hide_memory()
    try:
        settings = read_settings(RouterSettings)
        set_up_logging(settings)
        server = Server(settings) if settings.processes == 1 else None
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    try:
        sockets = listen(settings.host, settings.port)
    except OSError as error:
        print(f"cannot listen on {settings.host}:{settings.port}: {error}", file=sys.stderr)
        return 1
    if server is None:
        return asyncio.run(Processes(settings.processes, sockets, settings.drain_notice_seconds).run())
    server.run(sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
