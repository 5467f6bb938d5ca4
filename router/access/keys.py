"""API keys: their format, how to make one (`triptych keys NAME`), and their lookup.

Only the SHA-256 of a key is stored. A fast hash is enough, since keys have 256 random bits and cannot be
guessed as passwords can.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections import Counter
from functools import cached_property
from typing import Annotated, Any

import click
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from triptych.router.errors import InvalidKey, MissingKey

PREFIX = "triptych_"
_HASH = re.compile("[0-9a-fA-F]{64}")
_BEARER = re.compile(rb"(?i:bearer) +(\S+) *")
# Keys are indexed by this many bytes of their digest.
_FINDER_BYTES = 8


class Key(BaseModel):
    """A key with its limits per minute; None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=f"^{_HASH.pattern}$", repr=False)]
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None

    @cached_property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256)


def _named(entry: Any) -> Any:
    """A hash alone is a key without limits; its name is made from the hash."""
    if not isinstance(entry, str):
        return entry
    if not _HASH.fullmatch(entry):
        raise ValueError(
            "give the SHA-256 of a key (64 hexadecimal digits), not the key; see `triptych keys`"
        )
    return {"name": f"key-{entry[:8].lower()}", "sha256": entry}


class KeysError(ValueError):
    """Invalid keys. The message says which and why, and quotes nothing that may be a secret."""


def _distinct(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    names = Counter(key.name for key in keys)
    finders = Counter(key.digest[:_FINDER_BYTES] for key in keys)
    twice = {key.name for key in keys if names[key.name] > 1 or finders[key.digest[:_FINDER_BYTES]] > 1}
    if twice:
        raise KeysError(f"duplicate name or key: {', '.join(sorted(twice))}")
    return keys


Keys = Annotated[tuple[Annotated[Key, BeforeValidator(_named)], ...], AfterValidator(_distinct)]
_adapter: TypeAdapter[tuple[Key, ...]] = TypeAdapter(Keys)


def read_keys(text: str | bytes) -> tuple[Key, ...]:
    """Parse a list of keys. Raises `KeysError`."""
    try:
        return _adapter.validate_json(text)
    except ValidationError as error:
        raise KeysError(
            "; ".join(map(_fault, error.errors(include_url=False, include_input=False)))
        ) from None


def _fault(fault: Any) -> str:
    where = [f"entry {part + 1}" if isinstance(part, int) else part for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        # The unknown field is not quoted, since it may be a key that was pasted there by mistake.
        return ": ".join([*where[:-1], "unknown field; the fields are " + ", ".join(Key.model_fields)])
    return ": ".join([*where, fault["msg"].removeprefix("Value error, ")])


class KeyRing:
    """Finds the key of a request."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        """Raises `KeysError` for a duplicate name or key."""
        self._by_finder = {key.digest[:_FINDER_BYTES]: key for key in _distinct(keys)}

    def __len__(self) -> int:
        return len(self._by_finder)

    def find(self, authorization: bytes | None) -> Key:
        """The key in an Authorization header. Raises `MissingKey` or `InvalidKey`."""
        match = _BEARER.fullmatch(authorization or b"")
        if match is None:
            raise MissingKey("send the header `Authorization: Bearer KEY` with your API key")
        digest = hashlib.sha256(match[1]).digest()
        # The time of the lookup can leak only the first bytes of a stored hash, which do not lead to its key.
        # The comparison of the whole digest takes constant time.
        key = self._by_finder.get(digest[:_FINDER_BYTES])
        if key is None or not hmac.compare_digest(digest, key.digest):
            raise InvalidKey("the API key is invalid")
        return key


def make_key(name: str, **limits: int | None) -> tuple[str, dict[str, Any]]:
    """Make a key; returns it and its entry for the file."""
    key = PREFIX + secrets.token_urlsafe(32)
    entry = Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), **limits)
    return key, entry.model_dump(exclude_none=True)


@click.command()
@click.argument("name")
@click.option("--requests-per-minute", type=int, metavar="N", help="Limit of requests.  [default: none]")
@click.option("--tokens-per-minute", type=int, metavar="N", help="Limit of tokens.  [default: none]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys(name: str, as_json: bool, **limits: int | None) -> None:
    """Make an API key for NAME: letters, digits and _ . @ -

    The key is printed once and not stored. Add its entry, which holds only its hash, to the list in
    ROUTER_API_KEYS_FILE (or ROUTER_API_KEYS).

    \b
    Examples:
      triptych keys alice
      triptych keys batch-jobs --requests-per-minute 600 --tokens-per-minute 1000000 --json
    """
    try:
        key, entry = make_key(name, **limits)
    except ValidationError as error:
        raise click.UsageError("; ".join(map(_fault, error.errors()))) from None
    as_text = f"key    {key}\nentry  {json.dumps(entry)}"
    click.echo(json.dumps({"key": key, "entry": entry}, indent=2) if as_json else as_text)


if __name__ == "__main__":
    keys(prog_name="triptych keys")
