"""How API keys share a room: of a queue, or in the memory of a process (pure).

They share by dynamic thresholds (Choudhury and Hahne, 1998): a key may add work while it has less than
`THRESHOLD` times the free room. So all keys that ask for more get equal parts, and some room stays free for
the next one. A part of the room is kept for keys with little in it, however full the rest is.
"""

# Alone, a key gets two thirds of the shared room; each of three keys gets two sevenths.
THRESHOLD = 2
# The part of the room that is kept, and the part that counts as little: 78 items and 3,906 tokens by default.
KEPT, LITTLE = 1 / 8, 1 / 256


class Room:
    """Most items or tokens that may wait, or most bytes that may be held."""

    __slots__ = ("_little", "_shared", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._little = max(1.0, LITTLE * most)
        self._shared = (1 - KEPT) * most

    def has_share(self, own: int, asked: int, taken: int) -> bool:
        """Whether a key that has `own` of all that is `taken` may add `asked`."""
        free = self._shared - taken
        return own + asked <= self._little or (asked <= free and own < THRESHOLD * free)
