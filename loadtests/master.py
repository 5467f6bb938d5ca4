"""locust's master, for runs whose processes are counted.

Importing it imports locust, which makes sockets and clocks cooperative in the whole process.
"""

from typing import Any

from locust import runners
from locust.env import Environment
from locust.rpc import Message

from loadtests import plan as messages
from loadtests.failed import HarnessFailed

SILENT_SECONDS = 10
# Heartbeats come once a second. After three without one locust would stop the load, and a busy machine may
# well bring that about.
runners.HEARTBEAT_LIVENESS = SILENT_SECONDS


class Master(runners.MasterRunner):
    """Takes on `size` processes that join at `host`:`port` (0: any), and sends others away.

    locust would give whoever joins a share of the load. Raises `HarnessFailed` for an address that cannot be
    listened on.
    """

    def __init__(self, environment: Environment, host: str, port: int, size: int) -> None:
        # It listens before it is made.
        self._size = size
        self._names: dict[str, str] = {}
        try:
            super().__init__(environment, host, port)
        except SystemExit:
            raise HarnessFailed(
                f"{host}:{port} cannot be listened on; is another run waiting there?"
            ) from None
        environment.runner = self
        self.port: int = self.server.port
        self.register_message(messages.JOINED, self._on_joined)

    @property
    def members(self) -> dict[str, str]:
        """The names of those that have joined, by locust's id; not of those that have been silent for
        `SILENT_SECONDS`."""
        return {client: name for client, name in self._names.items() if self._is_here(client)}

    def handle_message(self, client_id: str, msg: Message) -> None:
        """Do what a process asks for."""
        if self._is_here(client_id) or self.worker_count < self._size:
            super().handle_message(client_id, msg)
        elif msg.type == "client_ready":
            # Until it is told so it listens to nothing else.
            self.send_message("ack", client_id=client_id)
        elif msg.type == messages.JOINED:
            self.send_message(messages.REFUSED, {"size": self._size}, client_id)

    def _is_here(self, client_id: str) -> bool:
        client = self.clients.get(client_id)
        return client is not None and client.state != runners.STATE_MISSING

    def _on_joined(self, msg: Message, **_: Any) -> None:
        self._names[msg.node_id] = msg.data["name"]
