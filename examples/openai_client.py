"""Move a client of OpenAI's embeddings API: change the address and the model.

python examples/openai_client.py
"""

import os

import openai

URL = os.environ.get("TRIPTYCH_URL", "http://127.0.0.1:8080")


def main() -> None:
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("TRIPTYCH_API_KEY", "any"))
    texts = ["Where is the nearest lighthouse?", "The lighthouse stands on the northern cape."]
    # The model's name may carry the task, for programs that cannot send further fields.
    reply = client.embeddings.create(
        model="jina-embeddings-v4:retrieval.passage", input=texts, dimensions=256
    )
    for text, entry in zip(texts, reply.data, strict=True):
        print(f"{len(entry.embedding)} values for {text!r}")
    # Others send it as a field of its own.
    client.embeddings.create(model="jina-embeddings-v4", input=texts, extra_body={"task": "retrieval.query"})
    print(f"{reply.usage.total_tokens} tokens")


if __name__ == "__main__":
    main()
