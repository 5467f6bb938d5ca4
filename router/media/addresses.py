"""SSRF protection: which URLs and IP addresses media may be fetched from (pure).

- Only public addresses are allowed, so that unknown kinds are refused.
- IPv6 addresses that contain an IPv4 address (mapped, 6to4, NAT64, Teredo) are refused.
- Hosts that are IPv4 numbers (`127.1`, `0x7f000001`, `017700000001`) must be written as four decimal numbers,
  since libraries disagree about other forms.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address

MAX_URL_CHARACTERS = 8192
NOT_PUBLIC = "the host has no public address"

# IANA's special-purpose registry, multicast and reserved space; and 168.63.129.16, a public address where
# Azure serves the secrets of a machine.
_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
# Public unicast, without protocol assignments (such as Teredo), documentation and 6to4.
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

_FOUR_DECIMALS = re.compile(r"(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})", re.ASCII)
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*", re.ASCII)
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\]")


class Refused(ValueError):
    """The URL or its response is not accepted. The message says why, and quotes no address."""


def is_allowed(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    """Whether `address` is public or in one of the operator's `networks`."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        address = IPv6Address(int(address))
    if any(address in network for network in networks):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def parse(text: str) -> URL:
    """Parse a URL without normalising it, since it may be signed. Raises `ValueError`."""
    return URL(text, encoded=text.isascii())


def check_url(text: str, networks: Sequence[IPNetwork]) -> URL:
    """Parse a URL and check all that can be checked before its host is resolved. Raises `Refused`."""
    if len(text) > MAX_URL_CHARACTERS:
        raise Refused(f"the URL has more than {MAX_URL_CHARACTERS} characters")
    if _NOT_IN_A_URL.search(text):
        raise Refused("the URL contains spaces, control characters or backslashes")
    try:
        url = parse(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise Refused("the URL is not valid") from None
    if url.scheme not in ("http", "https"):
        raise Refused("only http and https URLs are fetched")
    if url.raw_user is not None or url.raw_password is not None:
        raise Refused("the URL contains a user name or a password")
    if not host or not port:
        raise Refused("the URL has no host or an invalid port")
    literal = _literal(host, "[" in url.raw_authority)
    if literal is not None and not is_allowed(literal, networks):
        raise Refused(NOT_PUBLIC)
    return url


def _literal(host: str, brackets: bool) -> IPAddress | None:
    """The IP address in `host`, or None for a name. Raises `Refused` for other numbers."""
    if "%" in host:
        raise Refused("the host contains a %")
    if brackets:
        try:
            return ip_address(host)
        except ValueError:
            raise Refused("the host is not a valid IPv6 address") from None
    # As in the URL standard, a host whose last label is a number must be an IPv4 address.
    if not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        if _FOUR_DECIMALS.fullmatch(host):
            return IPv4Address(host)
    except ValueError:
        pass
    raise Refused("the host is a number; write an IPv4 address as four decimal numbers")
