"""What is known of weights without the network, and whether a share of a GPU holds them."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from deploy.ray.config import Pool
from deploy.ray.weights import UPSTREAM_GIB, utilization, verdict, weights_gib


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


def pool(**its: Any) -> Pool:
    return Pool.model_validate({"model": "m", **its})


def test_the_shards_of_a_folder_are_added_up(tmp_path: Path) -> None:
    assert weights_gib(str(folder(tmp_path / "m", a=2**30, b=2**29))) == 1.5


def test_only_what_the_index_names_counts(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", a=2**30, b=2**30, stray=2**30)
    index = {"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_gib(str(path)) == 2


def test_links_are_followed(tmp_path: Path) -> None:
    blob = folder(tmp_path / "blobs", a=2**30) / "a.safetensors"
    path = folder(tmp_path / "m")
    (path / "model.safetensors").symlink_to(blob)
    assert weights_gib(str(path)) == 1


@pytest.mark.parametrize(
    "index", ['{"weight_map": {"x": "gone.safetensors"}}', "{", "[]", '{"weight_map": 1}']
)
def test_of_a_folder_that_is_not_whole_nothing_is_known(tmp_path: Path, index: str) -> None:
    path = folder(tmp_path / "m", a=2**30)
    (path / "model.safetensors.index.json").write_text(index)
    assert weights_gib(str(path)) is None


def test_of_a_folder_without_weights_and_of_nothing_nothing_is_known(tmp_path: Path) -> None:
    assert weights_gib(str(folder(tmp_path / "m"))) is None
    assert weights_gib(str(tmp_path / "absent")) is None
    assert weights_gib("absent") is None


def test_the_published_ids_are_known_and_others_are_not() -> None:
    assert weights_gib("jinaai/jina-embeddings-v4") == UPSTREAM_GIB
    assert weights_gib("jinaai/jina-embeddings-v4-vllm-code") == UPSTREAM_GIB
    assert weights_gib("jinaai/jina-embeddings-v4-text-code-GGUF") is None
    assert weights_gib("someone/something") is None
    assert 6.9 < UPSTREAM_GIB < 7.45  # below 8 GB, which the adapters are in


def test_the_network_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def lookup(*host: Any, **_: Any) -> None:
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert weights_gib("someone/something") is None
    assert asked == []


def test_an_id_in_the_cache_is_measured(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--jinaai--jina-embeddings-v4"
    folder(repository / "snapshots" / ("a" * 40), model=2**30)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert weights_gib("jinaai/jina-embeddings-v4") == 1


@pytest.mark.parametrize(
    ("its", "share"),
    [
        ({"gpus": 0.3}, 0.27),
        ({"gpus": 1}, 0.9),
        ({"tensor_parallel": 2}, 0.9),
        ({"gpus": 0.3, "worker": {"gpu_memory_utilization": 0.5}}, 0.5),
        ({}, 0),
    ],
)
def test_the_share_of_memory_follows_the_share_of_the_gpu(its: dict[str, Any], share: float) -> None:
    assert utilization(pool(**its)) == pytest.approx(share)


def test_weights_that_do_not_fit_are_a_no_with_the_numbers() -> None:
    its = verdict("retrieval", pool(gpus=0.1), 7.6, 24)
    assert its.holds == "no"
    assert its.text == "weights of 7.6 GiB do not fit in 0.1 of a GPU of 24 GiB (2.2 GiB)"


def test_a_share_that_the_worker_is_told_comes_first() -> None:
    its = verdict("retrieval", pool(gpus=1, worker={"gpu_memory_utilization": 0.2}), 7.6, 24)
    assert its.text == (
        "weights of 7.6 GiB do not fit in gpu_memory_utilization 0.2 of a GPU of 24 GiB (4.8 GiB)"
    )


def test_tensor_parallel_divides_the_weights() -> None:
    assert verdict("code", pool(tensor_parallel=2), 16, 16).holds == "yes"
    assert verdict("code", pool(gpus=1), 16, 16).holds == "no"


def test_weights_without_room_to_work_are_tight() -> None:
    its = verdict("code", pool(gpus=1), 7.0, 8)
    assert its.holds == "tight"
    assert (
        its.text
        == "weights 7.0 + cache 1.1 + about 1 to work in is 9.1 GiB, more than a GPU of 8 GiB (7.2 GiB)"
    )


@pytest.mark.parametrize(
    ("worker", "holds"),
    [
        ({"max_tokens": 8192}, "yes"),
        ({"kv_cache_gib": 0.5}, "yes"),
        ({"kv_cache_gib": 3}, "tight"),
        ({}, "tight"),
    ],
)
def test_the_cache_is_what_is_set_or_holds_one_input(worker: dict[str, Any], holds: str) -> None:
    assert verdict("code", pool(gpus=1, worker=worker), 7.0, 9.9).holds == holds


@pytest.mark.parametrize(
    ("worker", "weights", "memory", "said"),
    [
        ({}, None, 24.0, "weights is unknown"),
        ({}, 7.0, None, "memory is unknown"),
        ({"quantization": "fp8"}, 7.0, 24.0, "after quantization fp8 is unknown"),
        ({"dtype": "float32"}, 7.0, 24.0, "after conversion to float32 is unknown"),
    ],
)
def test_what_is_unknown_is_said(
    worker: dict[str, Any], weights: float | None, memory: float | None, said: str
) -> None:
    its = verdict("code", pool(gpus=0.1, worker=worker), weights, memory)
    assert its.holds == "unknown"
    assert said in its.text
