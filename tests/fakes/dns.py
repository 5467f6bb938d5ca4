"""A name server on loopback that answers SRV questions, over UDP and, for long answers, TCP."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from triptych.loadtests.server_processes import free_port

# Bytes of a message over TCP.
LARGEST = 65_535


class NameServer:
    """Holds the SRV records of each name, as `host:port`. Answers with `rcode` if it is set."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.records: dict[str, Sequence[str]] = {}
        self.rcode: dns.rcode.Rcode | None = None
        self.answered: list[str] = []

    def answer(self, data: bytes, transport: str) -> bytes:
        question = dns.message.from_wire(data)
        reply = dns.message.make_response(question)
        name = question.question[0].name
        records = self.records.get(name.to_text(omit_final_dot=True))
        self.answered.append(transport)
        if self.rcode is not None:
            reply.set_rcode(self.rcode)
        elif records is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            texts = [f"0 100 {port} {host}." for host, _, port in (one.rpartition(":") for one in records)]
            found = dns.rrset.from_text_list(name, 0, dns.rdataclass.IN, dns.rdatatype.SRV, texts)
            reply.answer.append(found)
        if transport == "udp":
            return reply.to_wire(prefer_truncation=True)
        return reply.to_wire(max_size=LARGEST)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._server.answer(data, "udp"), address)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A running name server."""
    # Not one of the kernel's ports, which another process may have for UDP.
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        server = NameServer(listener.getsockname()[1])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            length = int.from_bytes(await reader.readexactly(2), "big")
            wire = server.answer(await reader.readexactly(length), "tcp")
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
            writer.close()

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(server), local_addr=listener.getsockname()
        )
        tcp = await asyncio.start_server(serve, sock=listener)
        try:
            yield server
        finally:
            transport.close()
            tcp.close()
