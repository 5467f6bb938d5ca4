"""The import package, the one name that an installed wheel takes. In a checkout it links to the folders.

    from triptych import Client

The client is imported on first use, so that servers and commands do not load it.
"""

# As `typing.TYPE_CHECKING`, without its import: every process of the environment imports this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from triptych.router.client import AsyncClient, Client, Image

__all__ = ["AsyncClient", "Client", "Image"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from triptych.router import client

    return getattr(client, name)
