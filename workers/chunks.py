"""Late chunking: one document of several parts, and which of its tokens belong to which part.

The choices, which nothing outside prescribes: parts are joined with a space where neither neighbour has
white space. White space at a boundary counts to the part that follows, whoever wrote it, since in the
tokens of Qwen2 a space belongs to the word behind it. The role's prefix counts to the first part. A token
across a boundary belongs to the part in which it begins.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from workers.plugin.spec import Span


class EmptyChunkError(ValueError):
    """A part has no token of its own, so there is nothing to pool."""


class ChunkCutError(ValueError):
    """A part lies behind the context's end, so that nothing is left of it to pool."""


def join(prefix: str, chunks: Sequence[str]) -> tuple[str, list[int]]:
    """The document's text, and for each part the character at which it begins.

    The first begins at 0, with the prefix; every other with the white space before it.
    """
    pieces = [prefix]
    starts = [0]
    length = len(prefix)
    for number, chunk in enumerate(chunks):
        if number:
            before = pieces[-1]
            starts.append(length - (len(before) - len(before.rstrip())))
            if chunk and not chunk[0].isspace() and not before[-1:].isspace():
                pieces.append(" ")
                length += 1
        pieces.append(chunk)
        length += len(chunk)
    return "".join(pieces), starts


def spans_of(token_starts: Sequence[int], chunk_starts: Sequence[int], limit: int) -> list[Span]:
    """The tokens of each part as [start, end), given where tokens and parts begin (characters, ascending).

    Tokens from `limit` on are cut off. Raises `EmptyChunkError` or `ChunkCutError` for a part without any.
    """
    total = len(token_starts)
    firsts = [bisect_left(token_starts, start) for start in chunk_starts] + [total]
    spans = []
    for index, (first, end) in enumerate(pairwise(firsts)):
        if first == end:
            raise EmptyChunkError(f"part {index} has no token of its own")
        if first >= limit:
            raise ChunkCutError(
                f"part {index} begins at token {first} of {total}, the model takes {limit}: send fewer parts"
            )
        spans.append((first, min(end, limit)))
    return spans
