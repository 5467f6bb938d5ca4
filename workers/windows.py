"""Cross-encoder input: token ids of query and document; a long document in overlapping windows."""

from typing import NamedTuple

from tokenizers import Tokenizer

# Tokens that neighbouring windows share, so that a sentence at a boundary is whole in one of them.
_OVERLAP = 80


class Windows(NamedTuple):
    """Token ids of each window; `second_segment` is the first position of token type 1, or None.

    `cut` is true if the windows do not cover the whole document.
    """

    token_ids: list[list[int]]
    second_segment: int | None
    cut: bool


class WindowTokenizer:
    """Tokenizes pairs into windows of at most `context` tokens, and `max_tokens` for all windows together.

    The router counts at most `max_tokens` for a document. Sets the padding and truncation of `tokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_windows = max(1, max_tokens // context)
        self._max_query = context // 2
        # The tokenizer's file may hold values for training.
        tokenizer.no_padding()
        room = context - tokenizer.num_special_tokens_to_add(is_pair=True) - self._max_query
        # At most half of the smallest window, so that each window advances.
        tokenizer.enable_truncation(context, stride=min(_OVERLAP, room // 2), strategy="only_second")
        # Tokenizing megabytes takes seconds, so text is cut to this many characters first. No token is
        # longer, so the windows are full by then unless most of the text is white space.
        longest = max(map(len, tokenizer.get_vocab()))
        self._max_characters = self._max_windows * context * longest
        self._max_query_characters = (self._max_query + 1) * longest

    def shorten(self, query: str) -> str:
        """The query, cut to half of the context."""
        query = query[: self._max_query_characters]
        # The tokenizer truncates only the second text of a pair.
        [encoding] = self._tokenizer.encode_batch([("", query)])
        ends = [
            end
            for sequence, (_, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True)
            if sequence == 1
        ]
        return query if len(ends) <= self._max_query else query[: ends[self._max_query - 1]]

    def windows(self, query: str, document: str) -> Windows:
        """The windows of a document beside a query from `shorten`."""
        text = document[: self._max_characters]
        # Unlike `encode`, `encode_batch` releases the GIL.
        [first] = self._tokenizer.encode_batch([(query, text)])
        encodings = [first, *first.overflowing]
        # Only the first window has the template's token types: tokenizers 0.23 sets others in the overflow.
        types = first.type_ids
        return Windows(
            [encoding.ids for encoding in encodings[: self._max_windows]],
            types.index(1) if 1 in types else None,
            len(encodings) > self._max_windows or len(text) < len(document),
        )
