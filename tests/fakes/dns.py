"""A name server on loopback that answers SRV questions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from triptych.loadtests.server_processes import free_port


class NameServer:
    """Holds the SRV records of each name, as `host:port`. Answers with `rcode` if it is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.records: dict[str, Sequence[str]] = {}
        self.rcode: dns.rcode.Rcode | None = None

    def answer(self, data: bytes) -> bytes:
        question = dns.message.from_wire(data)
        reply = dns.message.make_response(question)
        name = question.question[0].name
        records = self.records.get(name.to_text(omit_final_dot=True))
        if self.rcode is not None:
            reply.set_rcode(self.rcode)
        elif records is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            texts = [f"0 100 {port} {host}." for host, _, port in (one.rpartition(":") for one in records)]
            found = dns.rrset.from_text_list(name, 0, dns.rdataclass.IN, dns.rdatatype.SRV, texts)
            reply.answer.append(found)
        return reply.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._server.answer(data), address)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A running name server."""
    # Not one of the kernel's ports, which another process may have for UDP.
    server = NameServer(free_port())
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        transport.close()
