"""How jina-reranker-m0 reads a pair: in one prompt, the document first.

Prompt, limits, score token and bias are those of the model's own code (`modeling.py` of
jinaai/jina-reranker-m0, `compute_score`): a text document is cut to the context less 512 tokens, then the
prompt to the context. In one thing this differs. It counts 768 tokens for an image, the most that one can
have, and cuts a text beside an image to fit; the model's own code cuts through the image or fails.
"""

from tokenizers import Tokenizer

from triptych.workers.checkpoints.layout import MAX_PIXELS, TOKENIZER
from triptych.workers.checkpoints.variant import Variant
from triptych.workers.cross_encoder import Content, Pair
from triptych.workers.engine_args import context_of, engine_args
from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import Image, PoolName, Text

PROMPT = "**Document**:\n{document}\n**Query**:\n{query}"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SCORE_TOKEN = 100
# The score is sigmoid(logit - LOGIT_BIAS).
LOGIT_BIAS = 2.65
QUERY_TOKENS = 512
# A token is 28 x 28 pixels.
IMAGE_TOKENS = MAX_PIXELS // 28**2
# More than a token has on average.
CHARACTERS = 8


class PromptReader:
    """A `triptych.workers.cross_encoder.Reader`."""

    images = True

    def __init__(self, variant: Variant, task: PoolName, settings: WorkerSettings) -> None:
        from vllm.config import PoolerConfig

        self.folder, self.task = variant.path, task
        self.max_tokens = context_of(variant, settings)
        self.engine_args = engine_args(variant, settings) | {
            "pooler_config": PoolerConfig(task="classify", seq_pooling_type="LAST", logit_mean=LOGIT_BIAS),
            "limit_mm_per_prompt": {"image": 2, "video": 0},
        }
        self._tokenizer = Tokenizer.from_file(str(variant.path / TOKENIZER))
        # The tokenizer's file may hold values for training.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        [_, self._placeholder, _] = self._ids(IMAGE)
        self._max_document = self.max_tokens - QUERY_TOKENS
        # Of the prompt without the document, which is an image's; doubled, because cutting a document may
        # split a character, and the rest of it has more tokens.
        self._around = 2 * len(self._ids(PROMPT.format(document="", query=IMAGE)))

    def query(self, content: Content) -> Content:
        return content if isinstance(content, Image) else Text(self._text(content), content.role)

    def pair(self, query: Content, document: Content) -> Pair:
        # `query` has cut it already.
        asked = query.text if isinstance(query, Text) else IMAGE
        read = self._text(document)
        images = [part.data for part in (document, query) if isinstance(part, Image)]
        room = self.max_tokens - 1 - len(images) * (IMAGE_TOKENS - 1)
        token_ids = self._ids(PROMPT.format(document=read, query=asked))
        limit = min(self._max_document, room - self._around) if images else self._max_document
        cut = len(token_ids) > room
        # Otherwise the document is shorter.
        if len(token_ids) > limit and not isinstance(document, Image):
            ids = self._ids(read)
            if len(ids) > limit:
                cut = True
                read = self._tokenizer.decode(ids[:limit], skip_special_tokens=False)
                token_ids = self._ids(PROMPT.format(document=read, query=asked))
        token_ids = token_ids[:room]
        if images and token_ids.count(self._placeholder) != len(images):
            message = "beside an image, a text must not contain <|image_pad|>"
            raise ItemError("invalid", message, query=isinstance(query, Text))
        query_image = len(images) - 1 if isinstance(query, Image) else None
        return Pair([[*token_ids, SCORE_TOKEN]], images, query_image, cut=cut)

    def _text(self, content: Content) -> str:
        """A text, or as much of it as has all tokens that count: tokenizing megabytes takes seconds."""
        if isinstance(content, Image):
            return IMAGE
        size = CHARACTERS * self.max_tokens
        while size < len(content.text) and len(self._ids(content.text[:size])) < self.max_tokens:
            size *= 2
        return content.text[:size]

    def _ids(self, text: str) -> list[int]:
        # Unlike `encode`, it releases the GIL.
        [encoding] = self._tokenizer.encode_batch_fast([text])
        return list(encoding.ids)
