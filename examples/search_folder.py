"""Index a folder of Markdown and images into Qdrant, and search it with a text.

    python examples/search_folder.py FOLDER "QUERY" [INDEX]

The index is a folder of Qdrant's embedded mode, `FOLDER.index` by default. It is made at the first run.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

from triptych import Client, Image

URL = os.environ.get("TRIPTYCH_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("TRIPTYCH_API_KEY")
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
DIMENSIONS = 512
COLLECTION = "folder"


def paragraphs(folder: Path) -> Iterator[tuple[str, str | Image]]:
    """Each paragraph and each image of the folder, with the name of its file."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix.lower() == ".md":
            for paragraph in path.read_text().split("\n\n"):
                if paragraph.strip():
                    yield name, paragraph.strip()
        elif path.suffix.lower() in PICTURES:
            yield name, Image.from_file(path)


def index(folder: Path, embeddings: Client, store: QdrantClient) -> None:
    """Embed the folder and store its vectors."""
    found = list(paragraphs(folder))
    if not found:
        sys.exit(f"{folder} has no Markdown files and no images")
    names, contents = zip(*found, strict=True)
    vectors = embeddings.embed(contents, task="retrieval.passage", dimensions=DIMENSIONS)
    store.create_collection(COLLECTION, VectorParams(size=DIMENSIONS, distance=Distance.COSINE))
    store.upsert(
        COLLECTION,
        [
            PointStruct(id=number, vector=vector.tolist(), payload={"file": name, "text": str(content)})
            for number, (name, content, vector) in enumerate(zip(names, contents, vectors, strict=True))
        ],
    )
    print(f"indexed {len(names)} paragraphs and images of {folder}")


def main(folder: str, query: str, place: str | None = None) -> None:
    store = QdrantClient(path=place or f"{folder.rstrip('/')}.index")
    with Client(URL, KEY) as embeddings:
        if not store.collection_exists(COLLECTION):
            index(Path(folder), embeddings, store)
        [vector] = embeddings.embed(query, task="retrieval.query", dimensions=DIMENSIONS)
    for point in store.query_points(COLLECTION, vector.tolist(), limit=5).points:
        found = point.payload or {}
        print(f"{point.score:.3f}  {found['file']}: {found['text'][:80]!r}")
    store.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
