"""API keys: how they are written down, made (`python -m router.access.keys NAME`) and recognised.

Only the SHA-256 of a key is kept. That is enough because keys are made here, of 256 random bits: nobody can
guess their way from the hash back to the key, as they could to a password, so a slow hash would cost each
request its time and protect nothing.
"""

import argparse
import hashlib
import hmac
import json
import re
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
)

from router.errors import InvalidKey, MissingKey

PREFIX = "triptych_"
_HASH = re.compile("[0-9a-fA-F]{64}")
_BEARER = re.compile(rb"[Bb]earer +(\S+) *")
# So much of a digest finds the key that may be the one.
_FINDER_BYTES = 8


class Key(BaseModel):
    """Who may send requests, and how much a minute; no limit where none is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=f"^{_HASH.pattern}$", repr=False)]
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    _digest: bytes = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        self._digest = bytes.fromhex(self.sha256)

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        return self._digest


def _named(entry: Any) -> Any:
    """A hash alone is a key without limits that is named after it."""
    if not isinstance(entry, str):
        return entry
    if not _HASH.fullmatch(entry):
        raise ValueError(
            "give the SHA-256 of a key (64 hexadecimal digits), not the key; see python -m router.access.keys"
        )
    return {"name": f"key-{entry[:8].lower()}", "sha256": entry}


def _distinct(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    names = Counter(key.name for key in keys)
    finders = Counter(key.digest[:_FINDER_BYTES] for key in keys)
    twice = {key.name for key in keys if names[key.name] > 1 or finders[key.digest[:_FINDER_BYTES]] > 1}
    if twice:
        raise ValueError(f"the same name or the same key twice: {', '.join(sorted(twice))}")
    return keys


Keys = Annotated[tuple[Annotated[Key, BeforeValidator(_named)], ...], AfterValidator(_distinct)]
_adapter: TypeAdapter[tuple[Key, ...]] = TypeAdapter(Keys)


class KeysError(ValueError):
    """Keys that cannot be used; the text says which and why, and quotes nothing that may be a secret."""


def read_keys(text: str | bytes) -> tuple[Key, ...]:
    """The keys in a file's text. Raises `KeysError`."""
    try:
        return _adapter.validate_json(text)
    except ValidationError as error:
        raise KeysError(
            "; ".join(map(_fault, error.errors(include_url=False, include_input=False)))
        ) from None


def _fault(fault: Any) -> str:
    where = [f"entry {part + 1}" if isinstance(part, int) else part for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        # The name of the field comes from the file, where a key may stand by mistake.
        where[-1] = "a field that is none of " + ", ".join(Key.model_fields)
    return ": ".join([*where, fault["msg"].removeprefix("Value error, ")])


class KeyRing:
    """Keys, found by what a request presents."""

    def __init__(self, keys: Sequence[Key]) -> None:
        """Raises `KeysError` when a name or a key is there twice."""
        try:
            _distinct(tuple(keys))
        except ValueError as error:
            raise KeysError(str(error)) from None
        self._by_finder = {key.digest[:_FINDER_BYTES]: key for key in keys}

    def __len__(self) -> int:
        return len(self._by_finder)

    def find(self, authorization: bytes | None) -> Key:
        """Whose the header is. Raises `MissingKey` or `InvalidKey`."""
        match = _BEARER.fullmatch(authorization or b"")
        if match is None:
            raise MissingKey("send the header `Authorization: Bearer KEY` with your API key")
        digest = hashlib.sha256(match[1]).digest()
        # How long the look-up takes can tell something of the first bytes of a stored hash at most, and
        # nobody can make a key whose hash begins as they like. What decides takes the same time always.
        key = self._by_finder.get(digest[:_FINDER_BYTES])
        if key is None or not hmac.compare_digest(digest, key.digest):
            raise InvalidKey("the API key is not one of those known here")
        return key


def make_key(name: str, **limits: int | None) -> tuple[str, dict[str, Any]]:
    """A new key, and its entry for the file."""
    key = PREFIX + secrets.token_urlsafe(32)
    entry = Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), **limits)
    return key, entry.model_dump(exclude_none=True)


def main(arguments: Sequence[str]) -> int:
    """Make a key and print it, once."""
    parser = argparse.ArgumentParser(
        prog="python -m router.access.keys",
        description="Make an API key. It is printed once and kept nowhere; its entry, which holds its hash, "
        "goes into the list in ROUTER_API_KEYS_FILE (or ROUTER_API_KEYS).",
    )
    parser.add_argument("name", help="whose key it is: letters, digits and _ . @ -")
    parser.add_argument("--requests-per-minute", type=int)
    parser.add_argument("--tokens-per-minute", type=int)
    given = vars(parser.parse_args(arguments))
    try:
        key, entry = make_key(**given)
    except ValidationError as error:
        parser.error("; ".join(map(_fault, error.errors())))
    print(f"key    {key}\nentry  {json.dumps(entry)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
