"""The examples in the OpenAPI document. A test sends each of them."""

import base64
from typing import Any

# An orange square of 32 by 32 pixels, as a PNG and as the page of a PDF.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKklEQVR42u3NQQ0AMAgEsGPKcQ4q9iBpDbSm89VLBAKBQCAQCAQC"
    "wY1gAbMeAb+708hdAAAAAElFTkSuQmCC"
)
_PDF = base64.b64encode(
    b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Count 1 /Kids [3 0 R]>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 32 32] /Contents 4 0 R>> endobj
4 0 obj <</Length 24>> stream
1 .5 0 rg 0 0 32 32 re f
endstream endobj
trailer <</Size 5 /Root 1 0 R>>
%%EOF
"""
).decode()

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "/v1/embeddings": {
        "A query": {"task": "retrieval.query", "input": "Where is the nearest lighthouse?"},
        "Passages, cut to 256 values": {
            "task": "retrieval.passage",
            "dimensions": 256,
            "input": ["The lighthouse stands on the northern cape.", "Bread is baked before dawn."],
        },
        "A text and an image": {"input": [{"text": "an orange square"}, {"image": _PNG}]},
        "The pages of a PDF": {"task": "retrieval.passage", "input": {"pdf": _PDF}},
        "A task for each input, as base64": {
            "embedding_type": "base64",
            "input": [
                {"text": "reverse a list", "task": "code.query"},
                {"text": "xs[::-1]", "task": "code.passage"},
            ],
        },
        "Late chunking: parts of one document, each embedded in its context": {
            "task": "retrieval.passage",
            "late_chunking": True,
            "input": ["Berlin is the capital of Germany.", "It has 3.8 million inhabitants."],
        },
    },
    "/v1/rerank": {
        "The best of three documents": {
            "query": "Where is the nearest lighthouse?",
            "documents": [
                "Bread is baked before dawn.",
                "The lighthouse stands on the northern cape.",
                {"image": _PNG},
            ],
            "top_n": 1,
        },
    },
}
"""Request bodies by path and summary."""
