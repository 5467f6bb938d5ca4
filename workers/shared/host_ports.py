"""Hosts and ports: how they are written, and whether one is free. Imports only the standard library."""

import socket


def address_of(host: str, port: int) -> str:
    """HOST:PORT as in a URL, where an address of IPv6 needs brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_taken(host: str, port: int) -> str | None:
    """Why a server cannot listen on this port now, None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
