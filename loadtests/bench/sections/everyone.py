"""Everyone side by side: other servers with the same weights, each as its documentation starts it on a CPU.

infinity and the vendor's server have packages of their own: docs/PERFORMANCE.md says how to install them.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from triptych.loadtests.bench import systems
from triptych.loadtests.bench.loops import Vector, post
from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections.compared import LONG, RETRIEVAL, SHORT, Load, side_by_side
from triptych.loadtests.bench.servers import SIZES, Engine, Servers
from triptych.loadtests.bench.stock import stock_copy
from triptych.loadtests.bench.systems import System
from triptych.workers.checkpoints.folders import load_json, write_json
from triptych.workers.checkpoints.layout import CONFIG
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.shared.families import V4

LOADS = (SHORT[1], SHORT[64], LONG)
BATCHES = tuple(Load(f"{tokens}-token texts in batches of 64", 1, tokens, texts=64) for tokens in (20, 512))
MEMORY = "memory, MiB"
MODEL = "jina-embeddings-v4"


async def run(bench: Bench, result: Result) -> None:
    servers, scale = bench.servers, bench.scale
    worker, stock, recipe = await servers.need(Engine(), Engine("stock"), Engine("token-level stock"))
    variant = await servers.variant()
    texts, dimensions = await servers.texts(), read_variant(variant).dimensions
    routed = systems.routed(await servers.router((RETRIEVAL, worker)), worker, "base64")
    compared = [
        systems.stock(stock, "base64"),
        systems.stock(stock, "base64", await servers.vllm_router(stock)),
        systems.recipe(recipe, "base64", dimensions),
        *await others(servers, variant, dimensions),
        routed,
    ]
    of_batches = [await transformers(servers, variant, dimensions), routed]
    for load in (*LOADS, *BATCHES):
        chosen = of_batches if load in BATCHES else compared
        result.rows += await side_by_side(scale, load, chosen, texts)
    for system in (*compared, *of_batches):
        used = sum(memory_mib(server.pid) for server in system.processes.values())
        for row in result.rows:
            if row.system == system.name:
                row.figures[MEMORY] = [used]


def memory_mib(pid: int) -> float:
    """Memory of a process and its descendants; what they share counts once."""
    root = psutil.Process(pid)
    return sum(one.memory_full_info().pss for one in (root, *root.children(recursive=True))) / 2**20


async def transformers(servers: Servers, checkpoint: Path, dimensions: int) -> System:
    """Plain transformers, as a script would use it."""
    server = await servers.own_code(checkpoint)

    def make(texts: Sequence[str]) -> bytes:
        return post(f"{server.url}/", orjson.dumps(texts))

    def read(body: bytes) -> list[Vector]:
        return list(np.frombuffer(body, "<f4").reshape(-1, dimensions))

    return System("(h) transformers", {"script": server}, server.url, make, read)


async def others(servers: Servers, checkpoint: Path, dimensions: int) -> list[System]:
    """infinity, and the vendor's server with its batching; empty where they are not installed."""
    python, vendor = servers.folder / "others/bin/python", servers.folder / "jina-on-prem"
    if not python.exists() or not vendor.exists():
        print(f"infinity and jina-on-prem are left out: {python} or {vendor} is missing", flush=True)
        return []
    folder = sentence_transformer(servers.folder.resolve() / "sentence-transformer", checkpoint, dimensions)
    start = partial(servers.program, python=python, ready="/health", DO_NOT_TRACK="1")
    flags = ("--device", "cpu", "--dtype", "float32", "--no-bettertransformer", "--host", "127.0.0.1")
    named = ("--model-id", str(folder), "--served-model-name", "stock")
    infinity = await start("infinity", "infinity_emb.cli", "v2", *flags, *named, "--port")
    # The only change to the vendor's files: where the catalogue says that the weights are.
    catalog = vendor / "models" / "catalog.json"
    models = load_json(catalog)
    [entry] = [model for model in models["models"] if model["id"] == MODEL]
    entry["hf_repo"] = str(folder)
    write_json(catalog, models)
    app = ("uvicorn", "app:app", "--app-dir", str(vendor / "server"), "--port")
    on_prem = await start("jina-on-prem", *app, JINA_MODEL_ID=MODEL, JINA_BATCH="1", JINA_CPU_AUTOCAST="off")
    read = systems.read_embeddings
    ask_infinity = partial(systems.ask_stock, f"{infinity.url}/embeddings", "base64")
    ask_vendor = partial(systems.ask_router, on_prem.url, form="base64")
    return [
        System("(f) infinity", {"infinity": infinity}, infinity.url, ask_infinity, read),
        System("(g) jina-on-prem, batching", {"jina-on-prem": on_prem}, on_prem.url, ask_vendor, read),
    ]


def sentence_transformer(folder: Path, checkpoint: Path, dimensions: int) -> Path:
    """Write the checkpoint in the layout of sentence-transformers: transformer, mean, length 1."""
    if folder.exists():
        return folder
    stock_copy(checkpoint, folder)
    config = load_json(folder / CONFIG)
    # The text layers are Qwen2's, which needs no image processor. A text has one position in all dimensions.
    for name in ("rope_scaling", "vision_config"):
        del config[name]
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    files: dict[str, Any] = {
        CONFIG: config | {"model_type": "qwen2", "architectures": ["Qwen2Model"]},
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": dimensions, "pooling_mode_mean_tokens": True},
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": SIZES["nano"].max_tokens},
        "config_sentence_transformers.json": {"prompts": dict(V4.prefixes)},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder
