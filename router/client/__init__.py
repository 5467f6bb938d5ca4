"""The Python client for a running deployment.

    from triptych import Client

    with Client("http://127.0.0.1:8080") as client:
        vectors = client.embed(["a text", "another"], task="retrieval.passage")  # float32 [2, 2048]

`AsyncClient` is the same with `await`. `triptych.router.client.errors` has the exceptions.
"""

from triptych.router.client.clients import AsyncClient, Client
from triptych.router.client.errors import StatusError, TriptychError
from triptych.router.client.images import Image
from triptych.router.client.replies import RankedDocument, Readiness
from triptych.router.client.requests import EmbedOptions, MultiOptions

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
