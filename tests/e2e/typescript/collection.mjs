// Fills a collection of a Chroma server with Chroma's own function for Jina, of which only the address is changed.
//
//   node collection.mjs '{"chroma": 8000, "url": "...", "options": {...}, "documents": [...], "query": "..."}'
//
// Prints the stored vectors in the order of the documents, and the ids nearest to the query.
import { JinaEmbeddingFunction } from "@chroma-core/jina";
import { ChromaClient } from "chromadb";

const { chroma, url, options, documents, query } = JSON.parse(process.argv[2]);
const embeddingFunction = new JinaEmbeddingFunction({ apiKey: "any", ...options });
embeddingFunction.url = url;

const client = new ChromaClient({ host: "127.0.0.1", port: chroma });
const name = `c-${crypto.randomUUID()}`;
const collection = await client.createCollection({ name, embeddingFunction });
const ids = documents.map((_, number) => String(number));
await collection.add({ ids, documents });
const stored = await collection.get({ ids, include: ["embeddings"] });
const found = await collection.query({ queryTexts: [query], nResults: documents.length });
const vectors = ids.map((id) => stored.embeddings[stored.ids.indexOf(id)]);
console.log(JSON.stringify({ vectors, nearest: found.ids[0] }));
