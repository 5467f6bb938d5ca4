"""Late chunking: joins the chunks of a document, and maps the document's tokens back to chunks.

Our conventions: chunks are joined with a space unless there is white space on either side of the boundary.
White space at a boundary belongs to the chunk behind it, because a token of Qwen2 includes the space before
its word. The role's prefix belongs to the first chunk. A token across a boundary belongs to the chunk in
which it begins.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from triptych.workers.item_error import ItemError
from triptych.workers.plugin.pooling_spec import Span


def join(prefix: str, chunks: Sequence[str]) -> tuple[str, list[int]]:
    """The document's text, and the character at which each chunk begins.

    The first chunk begins at 0, with the prefix; each other with the white space before it.
    """
    pieces, starts, length = [prefix], [0], len(prefix)
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
    """The tokens of each chunk as [start, end), from the characters at which tokens and chunks begin.

    Tokens from `limit` on are cut off, so not all of them have to be given. Raises `ItemError` if that or an
    empty chunk leaves a chunk without tokens.
    """
    total = len(token_starts)
    firsts = [bisect_left(token_starts, start) for start in chunk_starts] + [total]
    spans = []
    for index, (first, end) in enumerate(pairwise(firsts)):
        if limit <= first and limit < total:
            raise ItemError(
                "token_limit",
                f"chunk {index} begins at token {first} or later, the limit is {limit}: send fewer chunks",
            )
        if first == end:
            raise ItemError("invalid", f"chunk {index} has no token of its own")
        spans.append((first, min(end, limit)))
    return spans
