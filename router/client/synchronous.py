"""The client that waits: only I/O, all else is in requests, replies and retries."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from router.client import replies, requests
from router.client.core import MAX_WAIT_SECONDS, RETRIES, TIMEOUT_SECONDS, Core, failures
from router.client.errors import TriptychError
from router.client.replies import Floats, RankedDocument, Readiness
from router.client.requests import Call, EmbedOptions, Inputs, Item, MultiOptions
from router.client.retries import Clock


class Client:
    """A deployment at `base_url`, such as http://127.0.0.1:8080.

    timeout: seconds that one request may take; the server stops working on it then.
    retries: how often a request is tried again after 429, 503, 504 or a lost connection, which is safe since
        the same input always gives the same vector. Retry-After is honoured; otherwise pauses double.
    max_wait: seconds after which no further try of a request begins.
    transport: takes the place of the network, for tests.

    Every method raises one of `router.client.errors`.
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
        """One vector for each input: float32 [n, d], in the order of the inputs; [1, d] for a single one.

        More than 512 inputs, or 48 MiB of them, are sent as several requests, one after the other. A PDF,
        alone as `{"pdf": ...}`, gives a vector for each page. A lone surrogate in a text, here and in the
        other methods, is sent as U+FFFD.
        """
        one_space = replies.OneSpace()
        found = [
            replies.vectors(self._send(requests.embed_call(part, **options), one_space), part.vectors)
            for part in requests.parts(inputs, options.get("late_chunking"))
        ]
        return replies.join(found)

    def embed_multi(self, inputs: Inputs, **options: Unpack[MultiOptions]) -> list[Floats]:
        """One vector for each token: for each input float32 [tokens, 128], in the order of the inputs."""
        one_space = replies.OneSpace()
        found: list[Floats] = []
        for part in requests.parts(inputs):
            body = self._send(requests.embed_call(part, multivector=True, **options), one_space)
            found += replies.multivectors(body, part.vectors)
        return found

    def rerank(
        self, query: Item, documents: Sequence[Item], top_n: int | None = None
    ) -> list[RankedDocument]:
        """The documents that answer `query` best, the best first; all of them, or `top_n`."""
        return replies.ranked(self._send(requests.rerank_call(query, documents, top_n)), documents)

    def models(self) -> list[str]:
        """The names of the models served."""
        return replies.model_names(self._send(requests.MODELS))

    def ready(self) -> Readiness:
        """Whether every pool can answer, and which cannot; asked once, without retries."""
        with failures():
            return replies.readiness(self._request(requests.READY).content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call, one_space: replies.OneSpace | None = None) -> bytes:
        tries = self._core.tries()
        while True:
            try:
                with failures():
                    reply = self._request(call)
                body = replies.accept(reply.status_code, reply.headers, reply.content)
                if one_space is not None:
                    one_space.check(reply.headers)
                return body
            except TriptychError as error:
                pause = tries.pause(error)
            self._core.clock.sleep(pause)

    def _request(self, call: Call) -> httpx.Response:
        return self._http.request(call.method, call.path, content=call.body, headers=call.headers)
