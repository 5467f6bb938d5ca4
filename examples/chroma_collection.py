"""Use Chroma's own embedding function for Jina's API with another address.

python examples/chroma_collection.py "QUERY"
"""

import os
import sys

import chromadb
from chromadb.utils.embedding_functions import JinaEmbeddingFunction

URL = os.environ.get("TRIPTYCH_URL", "http://127.0.0.1:8080")
DOCUMENTS = [
    "The lighthouse was built in 1887 of grey stone.",
    "Rye bread keeps for a week.",
    "A binary heap gives its smallest element first.",
    "Swifts sleep while they fly.",
]


def function(task: str) -> JinaEmbeddingFunction:
    """Chroma's function. The address is its only private field that has to change."""
    made = JinaEmbeddingFunction(
        # Any text will do, unless the router has keys.
        api_key=os.environ.get("TRIPTYCH_API_KEY", "any"),
        model_name="jina-embeddings-v4",
        task=task,
        dimensions=512,
    )
    made._api_url = f"{URL}/v1/embeddings"
    return made


def main(query: str) -> None:
    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("documents", embedding_function=function("retrieval.passage"))
    collection.add([str(number) for number in range(len(DOCUMENTS))], documents=DOCUMENTS)
    # A query has another task than the passages.
    found = collection.query(function("retrieval.query")([query]), n_results=3)
    for text, distance in zip(found["documents"][0], found["distances"][0], strict=True):
        print(f"{distance:.3f}  {text}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Where is the nearest lighthouse?")
