"""Which addresses media may be fetched from: changes when a network, or a way to write one, does (pure).

Only what is assigned to the public is let through, so what nobody has thought of is refused. IPv6 that
carries IPv4 inside (mapped, 6to4, NAT64, Teredo) is refused whatever it carries. Host names that are
really IPv4 numbers (`127.1`, `0x7f000001`, `017700000001`) are refused unless written as four decimals,
because libraries disagree about what they mean.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address

MAX_URL_CHARACTERS = 8192

# IANA's special-purpose registry, multicast and reserved space; and 168.63.129.16, a public address at
# which Azure serves a machine's own secrets.
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
# All that is assigned for public unicast, less protocol assignments (Teredo among them), documentation
# and 6to4.
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

_FOUR_DECIMALS = re.compile(r"(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})", re.ASCII)
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*", re.ASCII)
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\]")


class Refused(ValueError):
    """An address that nothing is fetched from; the message says why, and names no address."""


def is_allowed(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    """Whether media may be fetched from `address`: a public one, or one in the operator's `networks`."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        address = IPv6Address(int(address))
    if any(address in network for network in networks):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def parse(text: str) -> URL:
    """A URL as it was written, since a signature may stand over it; raises `ValueError`."""
    return URL(text, encoded=text.isascii())


def check_url(text: str, networks: Sequence[IPNetwork]) -> URL:
    """The parsed form of a URL that may be asked for, as far as it can be told without looking up its host.

    Raises `Refused`.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise Refused(f"the address has more than {MAX_URL_CHARACTERS} characters")
    if _NOT_IN_A_URL.search(text):
        raise Refused("the address has spaces, control characters or backslashes in it")
    try:
        url = parse(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise Refused("this is no address") from None
    if url.scheme not in ("http", "https"):
        raise Refused("only http and https addresses are fetched")
    if url.raw_user is not None or url.raw_password is not None:
        raise Refused("the address has a user name or a password in it")
    if not host or not port:
        raise Refused("the address names no host, or no port that there can be")
    literal = _literal(host, "[" in url.raw_authority)
    if literal is not None and not is_allowed(literal, networks):
        raise Refused("its host has no public address")
    return url


def _literal(host: str, brackets: bool) -> IPAddress | None:
    """The address that `host` is, None when it is a name; raises `Refused` for numbers in disguise."""
    if "%" in host:
        raise Refused("its host has a % in it")
    if brackets:
        try:
            return ip_address(host)
        except ValueError:
            raise Refused("its host is no IPv6 address") from None
    # As in the URL standard: a host whose last label is a number is an IPv4 address, or none at all.
    if not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        if _FOUR_DECIMALS.fullmatch(host):
            return IPv4Address(host)
    except ValueError:
        pass
    raise Refused("its host is a number; write an IPv4 address as four decimal numbers")
