"""The size of weights, and whether a share of a GPU holds an engine."""

import socket
from pathlib import Path
from typing import Any

import pytest

from triptych.deploy.common.gpu_memory import UPSTREAM_GIB, verdict, weights_gib
from triptych.workers.settings import WorkerSettings


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def folder(path: Path, **sizes: int) -> Path:
    path.mkdir(parents=True)
    for name, size in sizes.items():
        with (path / f"{name}.safetensors").open("wb") as file:
            file.truncate(size)
    return path


def test_size_of_a_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", a=2**30, b=2**29)
    assert weights_gib(str(path), "code") == 1.5
    folder(path / "adapters" / "code", adapter_model=2**28)
    assert weights_gib(str(path), "code") == 1.5
    assert weights_gib(str(path), "shared") == 1.75
    linked = folder(tmp_path / "linked")
    (linked / "model.safetensors").symlink_to(path / "a.safetensors")
    assert weights_gib(str(linked), "code") == 1
    assert weights_gib(str(folder(tmp_path / "empty")), "code") is None
    assert weights_gib(str(tmp_path / "absent"), "code") is None


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("jinaai/jina-embeddings-v4", UPSTREAM_GIB),
        ("jinaai/jina-embeddings-v4-vllm-code", UPSTREAM_GIB),
        ("jinaai/jina-embeddings-v4-text-code-GGUF", None),
        ("someone/something", None),
    ],
)
def test_size_of_published_ids_is_known(model: str, size: float | None) -> None:
    assert weights_gib(model, "code") == size


def test_no_network_access(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def lookup(*host: Any, **_: Any) -> None:
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert weights_gib("someone/something", "code") is None
    assert asked == []


def test_size_of_a_cached_id(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--jinaai--jina-embeddings-v4"
    folder(repository / "snapshots" / ("a" * 40), model=2**30)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert weights_gib("jinaai/jina-embeddings-v4", "code") == 1


def settings(**its: Any) -> WorkerSettings:
    return WorkerSettings(**{"model": "m", "task": "code", **its})


@pytest.mark.parametrize(
    ("gpus", "its", "weights", "memory", "holds"),
    [
        (0.1, {}, 7.6, 24, "no"),
        (1, {"gpu_memory_utilization": 0.2}, 7.6, 24, "no"),
        (0.1, {"gpu_memory_utilization": 0.5}, 7.6, 24, "yes"),
        (1, {}, 16, 16, "no"),
        (2, {"tensor_parallel": 2}, 16, 16, "yes"),
        (1, {}, 7.0, 8, "no"),
        (1, {}, 7.0, 9.9, "yes"),
        (1, {"max_tokens": 8192}, 7.0, 8.5, "yes"),
        (1, {"kv_cache_gib": 0.5}, 7.0, 9.9, "yes"),
        (1, {"task": "v5-small.retrieval"}, 1.2, 5, "no"),
        (1, {"task": "v5-nano.retrieval"}, 1.2, 5, "yes"),
        (1, {"kv_cache_gib": 3}, 7.0, 9.9, "no"),
        (0.1, {}, None, 24, "unknown"),
        (0.1, {}, 7.0, None, "unknown"),
        (0.1, {"quantization": "fp8"}, 7.0, 24, "unknown"),
        (0.1, {"dtype": "float32"}, 7.0, 24, "unknown"),
    ],
)
def test_whether_a_gpu_holds_an_engine(
    gpus: float, its: dict[str, Any], weights: float | None, memory: float | None, holds: str
) -> None:
    assert verdict(settings(**its), gpus, weights, memory).holds == holds
