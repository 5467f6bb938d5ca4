"""SSRF protection: private addresses, and every way to disguise one."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.router.media.addresses import MAX_URL_CHARACTERS, Refused, check_url, is_allowed

PRIVATE = {
    "this host": "0.0.0.0 0.1.2.3 :: ::1 127.0.0.1 127.255.255.254",
    "private": "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fec0::1",
    "carrier-grade NAT": "100.64.0.1 100.127.255.255",
    "link-local": "169.254.0.1 fe80::1",
    "cloud metadata": "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "protocols": "192.88.99.1 100::1 2001:20::1 5f00::1",
    "benchmarks": "198.18.0.1 198.19.255.255 2001:2::1",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1",
    "reserved": "240.0.0.1 255.255.255.255 4000::1",
    "mapped": "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 ::127.0.0.1 ::8.8.8.8",
    "NAT64": "64:ff9b::10.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::10.0.0.1",
    "6to4": "2002:7f00:1:: 2002:808:808::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
}
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 "
    "192.167.255.255 198.17.255.255 223.255.255.255 2001:4860:4860::8888 2606:4700:4700::1111 "
    "2a00:1450:4001::1"
)


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("addresses", PRIVATE.values(), ids=PRIVATE)
def test_private_address_is_refused(addresses: str) -> None:
    for address in addresses.split():
        assert not is_allowed(ip_address(address), ()), address
        with pytest.raises(Refused):
            check_url(f"http://{in_url(address)}/a.png", ())


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), ())
    assert check_url(f"https://{in_url(address)}:8443/a.png?b=c", ()).raw_host == address


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_stdlib_local_address_is_refused(address: IPv4Address | IPv6Address) -> None:
    local = (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast) or (
        address.is_reserved or address.is_unspecified
    )
    assert not (local and is_allowed(address, ()))


@given(st.integers(0, 2**32 - 1))
def test_ipv4_inside_ipv6_is_refused(number: int) -> None:
    for prefix in (0xFFFF << 32, 0, 0x64FF9B << 96, 0xFFFF << 48):
        assert not is_allowed(IPv6Address(prefix | number), ())
    assert not is_allowed(IPv6Address(0x2002 << 112 | number << 80), ())
    assert not is_allowed(IPv6Address(0x20010000 << 96 | number ^ 0xFFFFFFFF), ())


def test_operator_networks_are_allowed() -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"), ip_network("::ffff:10.2.0.0/112"))
    for address in ("10.1.2.3", "fd12::1", "::ffff:10.2.3.4"):
        assert is_allowed(ip_address(address), networks)
    # A mapped address does not count as the IPv4 address inside it.
    for address in ("10.2.0.1", "fc00::1", "::ffff:10.1.2.3", "127.0.0.1"):
        assert not is_allowed(ip_address(address), networks)
    assert check_url("http://10.1.2.3/", networks).host == "10.1.2.3"
    assert is_allowed(ip_address("fe80::1%eth0"), (ip_network("fe80::/10"),))


DISGUISES = {
    "octal": "0177.0.0.1 0177.0.0.01 00000177.0.0.1 017700000001 008.8.8.8",
    "hexadecimal": "0x7f.0.0.1 0X7F.0.0.1 0x7f.1 0x7f000001 0x 127.0.0.0x1 example.0x7f",
    "decimal": "2130706433 0 4294967296",
    "short": "127.1 127.0.1 8.8.2056 a.1",
    "overflow": "127.0.0.256 127.0.0.257 1.2.3.4.5",
    "dot at the end": "127.0.0.1.",
    "other digits and dots": "\uff11\uff12\uff17.0.0.1 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460 "
    "127\u30020\u30020\u30021 127.0.0.\u2460 \u00b2130706433",
    "escapes": "%31%32%37.0.0.1 127.0.0.1%2f@example.org example.org%00.local",
    "zones": "[::1%25eth0] [fe80::1%25eth0] [2606:4700::1111%25eth0]",
    "IPv6": "[::ffff:7f00:1] [0:0:0:0:0:ffff:127.0.0.1] [::ffff:0x7f.0.0.1] [v1.fe80] [::1",
}


@pytest.mark.parametrize("hosts", DISGUISES.values(), ids=DISGUISES)
def test_disguised_number_is_refused(hosts: str) -> None:
    for host in hosts.split():
        with pytest.raises(Refused):
            check_url(f"http://{host}/a.png", ())


@pytest.mark.parametrize(
    "url",
    [
        *("", "a.png", "//example.org/a.png", "http:", "http://", "http:///a.png", "https://:443/a.png"),
        *("file:///etc/passwd", "ftp://example.org/a.png", "gopher://example.org/", "http:example.org"),
        *("data:image/png;base64,AAAA", "javascript:alert(1)", "http+unix://socket/a"),
        *("http://user@example.org/", "http://user:secret@example.org/", "http://:secret@example.org/"),
        *("http://example.org:0/", "http://example.org:65536/", "http://example.org:http/"),
        *("http://example.org:-1/", "http://example.org/a b", "http://example.org/\r\nX-A: b"),
        *("http://example.org\t/", " http://example.org/", "http://exam ple.org/"),
        *("http://example.org\\@127.0.0.1/", "http://example.org/" + "a" * MAX_URL_CHARACTERS),
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, ())


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://example.org", "example.org", 80),
        ("HTTPS://EXAMPLE.ORG/a.png", "EXAMPLE.ORG", 443),
        ("https://example.org:8443/a%20b.png?x=%2F#part", "example.org", 8443),
        ("https://bücher.example/ä.png", "xn--bcher-kva.example", 443),
        ("https://1.example.org/", "1.example.org", 443),
        ("https://0x7f.example.org/", "0x7f.example.org", 443),
        ("https://a_b.s3.example.org/", "a_b.s3.example.org", 443),
        ("https://example.org./", "example.org.", 443),
        # The resolver checks names.
        ("http://localhost/", "localhost", 80),
    ],
)
def test_web_url_is_allowed(url: str, host: str, port: int) -> None:
    checked = check_url(url, ())
    assert (checked.raw_host, checked.port) == (host, port)


def test_refusal_names_no_address() -> None:
    for url in ("http://169.254.169.254/latest", "http://[fd00::1]/", "http://0x7f.1/"):
        with pytest.raises(Refused) as caught:
            check_url(url, ())
        assert not re.search(r"[0-9a-f:]+[.:][0-9a-f]", str(caught.value))
