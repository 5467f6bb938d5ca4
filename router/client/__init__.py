"""The Python client for a running deployment.

    from router.client import Client

    with Client("http://127.0.0.1:8080") as client:
        vectors = client.embed(["a text", "another"], task="retrieval.passage")  # float32 [2, 2048]

`AsyncClient` is the same with `await`. `router.client.errors` has the exceptions.
"""

from router.client.asynchronous import AsyncClient
from router.client.errors import StatusError, TriptychError
from router.client.images import Image
from router.client.replies import RankedDocument, Readiness
from router.client.requests import EmbedOptions, MultiOptions
from router.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "EmbedOptions",
    "Image",
    "MultiOptions",
    "RankedDocument",
    "Readiness",
    "StatusError",
    "TriptychError",
]
