"""`/docs`: the OpenAPI document as one page that needs nothing else, with examples that run."""

import base64
import json
import struct
import zlib
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem } code { font-size: .9em }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #e5e5e5; padding: .4rem; text-align: left; vertical-align: top }
"""


def page(document: dict[str, Any], address: str) -> str:
    """HTML for `document`; the examples call `address`."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        '<p>The same as a document: <a href="/openapi.json">/openapi.json</a></p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])}. {_text(operation.get('description', ''))}</p>")
            parts += _request(document, operation)
            secured = "security" in operation
            parts += [
                _example(title, path, body, address, secured) for title, body in _EXAMPLES.get(path, ())
            ]
            parts += ["<h3>Replies</h3><table>", *map(_reply, operation["responses"].items()), "</table>"]
    parts.append("</body></html>")
    return "\n".join(parts)


def _request(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    rows = [
        (parameter["name"], parameter["in"], parameter["schema"], parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    body = operation.get("requestBody")
    if body is not None:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        fields = document["components"]["schemas"][name]["properties"]
        rows = [
            (field, "body", schema, schema.get("description", "")) for field, schema in fields.items()
        ] + rows
    if not rows:
        return []
    cells = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td>"
        f"<td>{escape(_values(schema))}</td><td>{_text(description)}</td></tr>"
        for name, where, schema, description in rows
    ]
    return ["<table><tr><th>Field</th><th>In</th><th>Values</th><th></th></tr>", *cells, "</table>"]


def _values(schema: dict[str, Any]) -> str:
    """What a schema allows, in a few words."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            seen = dict.fromkeys(_values(part) for part in schema[key])
            return " or ".join(value for value in seen if value != "null")
    if schema.get("type") == "array":
        return f"list of ({_values(schema['items'])})"
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['type']} {schema['minimum']} to {schema['maximum']}"
    return str(schema.get("type", "anything"))


def _reply(entry: tuple[str, dict[str, Any]]) -> str:
    status, reply = entry
    return f"<tr><td>{escape(status)}</td><td>{_text(reply['description'])}</td></tr>"


def _text(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))


def _example(title: str, path: str, body: dict[str, Any], address: str, secured: bool) -> str:
    data = json.dumps(body, ensure_ascii=False)
    key = ' -H "authorization: Bearer $API_KEY"' if secured else ""
    command = f"curl {address}{path}{key} -H 'content-type: application/json' -d '{data}'"
    return f"<h3>{escape(title)}</h3><pre>{escape(command)}</pre>"


def _png(side: int = 32) -> str:
    """A small orange square, as base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\x80\x00" * side) * side)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def _pdf() -> str:
    """One page with an orange square on it, as base64."""
    square = "1 .5 0 rg 50 50 100 100 re f"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Count 1/Kids[3 0 R]>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R>>",
        f"<</Length {len(square)}>>stream\n{square}\nendstream",
    )
    text = "%PDF-1.4\n"
    table = "0000000000 65535 f \n"
    for number, content in enumerate(objects, 1):
        table += f"{len(text):010} 00000 n \n"
        text += f"{number} 0 obj\n{content}\nendobj\n"
    size = len(objects) + 1
    end = f"xref\n0 {size}\n{table}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(text)}\n%%EOF\n"
    return base64.b64encode((text + end).encode()).decode()


_EXAMPLES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "/v1/embeddings": (
        ("A query", {"task": "retrieval.query", "input": "Where is the nearest lighthouse?"}),
        (
            "Passages, cut to 256 values",
            {
                "task": "retrieval.passage",
                "dimensions": 256,
                "input": ["The lighthouse stands on the northern cape.", "Bread is baked before dawn."],
            },
        ),
        ("A text beside an image", {"input": [{"text": "an orange square"}, {"image": _png()}]}),
        ("The pages of a PDF", {"task": "retrieval.passage", "input": {"pdf": _pdf()}}),
        (
            "A task for each input, as base64",
            {
                "embedding_type": "base64",
                "input": [
                    {"text": "reverse a list", "task": "code.query"},
                    {"text": "xs[::-1]", "task": "code.passage"},
                ],
            },
        ),
        (
            "The parts of one document, each in the context of the others",
            {
                "task": "retrieval.passage",
                "late_chunking": True,
                "input": ["Berlin is the capital of Germany.", "It has 3.8 million inhabitants."],
            },
        ),
    ),
    "/v1/rerank": (
        (
            "The best answer of three",
            {
                "query": "Where is the nearest lighthouse?",
                "documents": [
                    "Bread is baked before dawn.",
                    "The lighthouse stands on the northern cape.",
                    {"image": _png()},
                ],
                "top_n": 1,
            },
        ),
    ),
}
