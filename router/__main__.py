"""`python -m router`: reads the settings and serves until it is told to stop."""

import logging
import os
import sys

import uvicorn

from router.app import App
from router.settings import RouterSettings
from workers.strict_settings import SettingsError, read_settings


def main() -> int:
    """Serve. Returns the exit status: 78 when a setting has to change first."""
    try:
        settings = read_settings(RouterSettings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # One line for each call to a worker is more than anybody reads.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(
        App(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
