"""How API keys share the room of a queue (pure).

They share by dynamic thresholds (Choudhury and Hahne, 1998): a key may add work while it has less than
`THRESHOLD` times the free room. So all keys that ask for more get equal parts, and some room stays free for
the next one. A part of the room is kept for keys with little in the queue, however full the rest is.
"""

from typing import NamedTuple

# Alone, a key gets two thirds of the shared room; each of three keys gets two sevenths.
THRESHOLD = 2
# The part of the room that is kept, and the part that counts as little: 78 items and 3,906 tokens by default.
KEPT, LITTLE = 1 / 8, 1 / 256


class Amount(NamedTuple):
    """Items and their tokens, estimated."""

    items: int
    tokens: int


class Room(NamedTuple):
    """Most items and tokens that may wait."""

    items: int
    tokens: int

    def has(self, waiting: Amount, asked: Amount) -> bool:
        """Whether `asked` fits in beside all that are `waiting`."""
        return waiting.items + asked.items <= self.items and waiting.tokens + asked.tokens <= self.tokens

    def has_for_key(self, waiting: Amount, own: Amount, asked: Amount) -> bool:
        """Whether a key may add `asked` to its `own` waiting items, where `has` is true."""
        if (
            own.items + asked.items <= max(1, LITTLE * self.items)
            and own.tokens + asked.tokens <= LITTLE * self.tokens
        ):
            return True
        items = (1 - KEPT) * self.items - waiting.items
        tokens = (1 - KEPT) * self.tokens - waiting.tokens
        return (
            asked.items <= items
            and asked.tokens <= tokens
            and own.items < THRESHOLD * items
            and own.tokens < THRESHOLD * tokens
        )
