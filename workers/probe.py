"""Proof that an engine works: every form of output it offers, really encoded."""

import io

from PIL import Image as Pillow

from workers.contract import Image, Item, Text
from workers.engine import Engine
from workers.prompts import Prompt

_TEXT = Text("probe", "query")


async def probe(engine: Engine) -> None:
    """Encode one short text. Raises whatever is wrong, a vector that is not finite included."""
    await _encode(engine, Item(_TEXT))


async def warm_up(engine: Engine) -> None:
    """Encode a text, its multi-vector and an image, so that the first client finds all of it warm."""
    await probe(engine)
    await _encode(engine, Item(Image(_pixels())))
    if engine.info.multivector_dimensions is not None:
        await _encode(engine, Item(_TEXT, multivector=True))


async def _encode(engine: Engine, item: Item) -> None:
    (prompt,) = await engine.prompter.prompts([item])
    if not isinstance(prompt, Prompt):
        raise prompt
    await engine.encode(prompt)


def _pixels() -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (56, 56), "white").save(buffer, "PNG")
    return buffer.getvalue()
