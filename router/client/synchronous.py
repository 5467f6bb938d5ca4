"""The synchronous client. Only I/O: requests, replies and retries are in their own modules."""

from collections.abc import Sequence
from typing import Self, Unpack

import httpx

from triptych.router.client import replies
from triptych.router.client.core import MAX_WAIT_SECONDS, RETRIES, TIMEOUT_SECONDS, Core, failures
from triptych.router.client.errors import TriptychError
from triptych.router.client.replies import Floats, OneSpace, RankedDocument, Readiness
from triptych.router.client.requests import (
    MODELS,
    READY,
    Call,
    EmbedOptions,
    Inputs,
    Item,
    MultiOptions,
    embed_call,
    parts,
    rerank_call,
)
from triptych.router.client.retries import Clock


class Client:
    """A deployment at `base_url`, such as http://127.0.0.1:8080.

    timeout: seconds for one request. The server stops working on it then.
    retries: retries of a request after 429, 503, 504 or a lost connection. They are safe, since the same
        input always gives the same vector. Retry-After is honoured; otherwise pauses double.
    max_wait: seconds after which no retry starts.
    transport: replaces the network, for tests.

    Every method raises the errors in `triptych.router.client.errors`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        max_wait: float = MAX_WAIT_SECONDS,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._core = Core(base_url, api_key, timeout, retries, max_wait, clock)
        self._http = httpx.Client(
            base_url=self._core.base_url,
            headers=self._core.headers,
            timeout=self._core.timeout,
            transport=transport,
        )

    def embed(self, inputs: Inputs, **options: Unpack[EmbedOptions]) -> Floats:
        """Embed each input into one vector: float32 [n, d] in input order; [1, d] for a single input.

        More than 512 inputs or 48 MiB are sent as several requests, one after another. A PDF, `{"pdf": ...}`
        as the only input, gives one vector per page. A lone surrogate in a text is sent as U+FFFD.
        """
        one_space = OneSpace()
        found = [
            replies.vectors(self._send(embed_call(part, **options), one_space), part.vectors)
            for part in parts(inputs, options.get("late_chunking"))
        ]
        return replies.join(found)

    def embed_multi(self, inputs: Inputs, **options: Unpack[MultiOptions]) -> list[Floats]:
        """Embed each token into one vector: float32 [tokens, 128] per input, in input order."""
        one_space = OneSpace()
        found: list[Floats] = []
        for part in parts(inputs):
            body = self._send(embed_call(part, multivector=True, **options), one_space)
            found += replies.multivectors(body, part.vectors)
        return found

    def rerank(
        self, query: Item, documents: Sequence[Item], top_n: int | None = None, model: str | None = None
    ) -> list[RankedDocument]:
        """Rank documents by how well they answer `query`, best first; all, or the best `top_n`."""
        return replies.ranked(self._send(rerank_call(query, documents, top_n, model)), documents)

    def models(self) -> list[str]:
        """Names of the served models."""
        return replies.model_names(self._send(MODELS))

    def ready(self) -> Readiness:
        """Whether every pool can answer, and which cannot. Asks once, without retries."""
        with failures():
            return replies.readiness(self._request(READY).content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call, one_space: OneSpace | None = None) -> bytes:
        tries = self._core.tries()
        while True:
            try:
                with failures():
                    reply = self._request(call)
                return replies.accept(reply.status_code, reply.headers, reply.content, one_space)
            except TriptychError as error:
                pause = tries.pause(error)
            self._core.clock.sleep(pause)

    def _request(self, call: Call) -> httpx.Response:
        return self._http.request(call.method, call.path, content=call.body, headers=call.headers)
