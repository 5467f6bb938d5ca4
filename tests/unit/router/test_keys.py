"""API keys: their format, their lookup, and that no message contains one."""

import hashlib
import json
from unittest.mock import Mock

import pytest

from tests.exit_status import exit_status
from triptych.router.access import keys
from triptych.router.access.keys import KeyRing, KeysError, make_key, read_keys
from triptych.router.errors import InvalidKey, MissingKey

SECRET = "triptych_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()


def ring(*entries: object) -> KeyRing:
    return KeyRing(read_keys(json.dumps(entries)))


def test_key_is_found_by_hash() -> None:
    assert ring({"name": "alice", "sha256": HASH}).find(f"Bearer {SECRET}".encode()).name == "alice"
    assert ring({"name": "alice", "sha256": HASH.upper()}).find(f"BEARER  {SECRET} ".encode()).name == "alice"


def test_hash_alone_has_no_limits() -> None:
    key = ring(HASH).find(f"Bearer {SECRET}".encode())
    assert (key.requests_per_minute, key.tokens_per_minute) == (None, None)
    assert key.name == f"key-{HASH[:8]}"


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", b"Bearer ", SECRET.encode(), b"Basic YTpi", b"Bearer a b"]
)
def test_missing_bearer_token(header: bytes | None) -> None:
    with pytest.raises(MissingKey, match="Authorization: Bearer"):
        ring(HASH).find(header)


@pytest.mark.parametrize("presented", [SECRET[:-1], SECRET + "a", HASH, SECRET.lower(), "\xff"])
def test_wrong_key_is_invalid(presented: str) -> None:
    with pytest.raises(InvalidKey):
        ring(HASH).find(f"Bearer {presented}".encode("latin-1"))
    # The start of the hash is not enough.
    with pytest.raises(InvalidKey):
        ring(HASH[:16] + "0" * 48).find(f"Bearer {SECRET}".encode())


def test_digest_compare_is_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compare = Mock(return_value=True)
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    ring(HASH).find(f"Bearer {SECRET}".encode())
    compare.assert_called_once_with(bytes.fromhex(HASH), bytes.fromhex(HASH))


def test_command_prints_key_and_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(keys.keys, "alice", "--tokens-per-minute", "500") == 0
    [(_, key), (_, entry)] = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert key not in entry
    found = ring(json.loads(entry)).find(f"Bearer {key}".encode())
    assert (found.name, found.tokens_per_minute, found.requests_per_minute) == ("alice", 500, None)
    assert make_key("alice")[0] != key


def test_command_refuses_invalid_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(keys.keys, "al ice") == 2
    assert "name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Invalid JSON"),
        (f'["{SECRET}"]', "entry 1: give the SHA-256"),
        (json.dumps([{"name": "a", "sha256": SECRET}]), "entry 1: sha256"),
        (json.dumps([HASH, {"name": SECRET + "!", "sha256": HASH}]), "entry 2: name"),
        (json.dumps([{"name": "a", "sha256": HASH, SECRET: 1}]), "requests_per_minute"),
        (json.dumps([{"name": "a", "sha256": HASH, "key": SECRET}]), "unknown field"),
        (json.dumps([{"name": "a", "sha256": HASH, "requests_per_minute": SECRET}]), "requests_per_minute"),
        (json.dumps([HASH, {"name": "b", "sha256": HASH}]), ": b, key-"),
        (json.dumps([{"name": "b", "sha256": HASH}, {"name": "b", "sha256": "0" * 64}]), ": b"),
        (f'[{{"name": "a", "sha256": "{SECRET}"', "Invalid JSON"),
    ],
)
def test_errors_quote_no_secret(text: str, says: str) -> None:
    with pytest.raises(KeysError) as caught:
        read_keys(text)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_repr_has_no_hash() -> None:
    assert HASH not in repr(read_keys(f'["{HASH}"]'))
