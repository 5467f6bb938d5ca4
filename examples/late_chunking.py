"""Compare late chunking with plain chunks: how near is a query to each part of one document?

    python examples/late_chunking.py

In the document, later sentences say "it" and "the city". A plain chunk has lost what they refer to. Late
chunking reads the document in one pass, so each part knows what comes before it. The first part is the same
in both, because the model reads from left to right.
"""

import os

from triptych import Client

URL = os.environ.get("TRIPTYCH_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("TRIPTYCH_API_KEY")
QUERY = "How many people live in Berlin?"
DOCUMENT = [
    "Berlin is the capital and largest city of Germany.",
    "It has about 3.8 million inhabitants.",
    "The city lies on the river Spree.",
]


def main() -> None:
    with Client(URL, KEY) as client:
        [query] = client.embed(QUERY, task="retrieval.query")
        plain = client.embed(DOCUMENT, task="retrieval.passage")
        late = client.embed(DOCUMENT, task="retrieval.passage", late_chunking=True)
    print(f"{'plain':>7} {'late':>7}  cosine with {QUERY!r}")
    for part, alone, in_context in zip(DOCUMENT, plain @ query, late @ query, strict=True):
        print(f"{alone:7.3f} {in_context:7.3f}  {part}")


if __name__ == "__main__":
    main()
