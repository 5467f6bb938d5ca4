"""The layouts of v5 and v3: merged weights by definition, and refusals that name keys and shapes."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.exit_status import exit_status
from tests.unit.checkpoints.files import Tensors, edit_json, edit_tensors, weights
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.layouts import KNOWN
from triptych.workers.checkpoints.variant import read_record, read_variant
from triptych.workers.shared.families import V3, V5_NANO, V5_SMALL, Family

FAMILIES = (V5_SMALL, V5_NANO, V3)
Run = Callable[..., tuple[int, str, str]]
Copy, Refused = Callable[[Family], Path], Callable[..., str]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
BASE = "model.safetensors"
RETRIEVAL = "adapters/retrieval/adapter_model.safetensors"
UP = "base_model.model.layers.0.mlp.up_proj.lora_A.weight"
QKV = "roberta.encoder.layers.0.mixer.Wqkv.parametrizations.weight"
WORDS = "roberta.embeddings.word_embeddings.parametrizations.weight"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """A tiny checkpoint of each family; read-only."""
    folder = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        assert exit_status(cli, "tiny", "--nano", folder / family.key, "--model", family.name) == 0
    return {family: folder / family.key for family in FAMILIES}


@pytest.fixture(scope="module")
def merged(sources: dict[Family, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants of all families in float32; read-only."""
    out = tmp_path_factory.mktemp("merged")
    for source in sources.values():
        assert exit_status(cli, "merge", source, out, "--dtype", "float32") == 0
    return out


@pytest.fixture
def copy(sources: dict[Family, Path], tmp_path: Path) -> Copy:
    """A copy of a tiny checkpoint that a test may modify."""
    return lambda family: Path(shutil.copytree(sources[family], tmp_path / "source"))


def expected(family: Family, source: Path, adapter: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The variant's weights by definition, in float64."""
    base = {name: tensor.double() for name, tensor in load_file(source / BASE).items()}
    if family is not V3:
        halves = load_file(source / "adapters" / adapter / "adapter_model.safetensors")
        for name, weight in base.items():
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_{{}}.weight"
            if key.format("A") in halves:
                weight = weight + halves[key.format("B")].double() @ halves[key.format("A")].double()
            yield f"model.{name}", weight
        return
    config = json.loads((source / "config.json").read_text())
    for name, weight in base.items():
        if ".lora_" in name:
            continue
        if name.endswith(".original") and adapter != "base":
            number = [task.replace(".", "-") for task in config["lora_adaptations"]].index(adapter)
            a, b = (base[name.replace("original", f"0.lora_{half}")][number] for half in "AB")
            weight = weight + (a @ b if "embeddings" in name else b @ a) / 4
        yield name.replace(".parametrizations.weight.original", ".weight"), weight


@every_family
def test_weights_are_base_plus_scaled_product(
    family: Family, sources: dict[Family, Path], merged: Path
) -> None:
    for adapter in family.adapters:
        found = weights(merged / family.pool(adapter))
        wanted = dict(expected(family, sources[family], adapter))
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6, msg=name)


@every_family
def test_variants_can_be_served(family: Family, merged: Path, run: Run) -> None:
    digests = set()
    record = read_record(merged / family.pools[0])
    assert (record.r, record.alpha, record.projector) == ((4, 1, False) if family is V3 else (32, 32, False))
    for pool in family.pools:
        variant = read_variant(merged / pool)
        assert (variant.family, variant.task, variant.dimensions) == (family, pool, 64)
        assert variant.multivector_dimensions is None
        assert variant.positions == family.positions + 1
        digests.add(variant.digest)
        assert run("verify", merged / pool, "--full")[0] == 0
    assert len(digests) == len(family.pools)


def test_pool_of_another_model_is_refused(sources: dict[Family, Path], refused: Refused) -> None:
    error = refused(sources[V3], "--pool", "code")
    assert "jina-embeddings-v3, which has no code" in error
    assert "v3.text-matching" in error


def _with_head_and_prefix(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"model.{name}"] = tensors.pop(name)
    tensors["lm_head.weight"] = torch.ones(4, 4)


def _with_pooler(tensors: Tensors) -> None:
    tensors["roberta.pooler.dense.parametrizations.weight.0.lora_A"] = torch.ones(4)


@pytest.mark.parametrize(
    ("family", "pool", "edit"),
    [(V5_SMALL, "v5-small.clustering", _with_head_and_prefix), (V3, "v3.base", _with_pooler)],
)
def test_what_embeddings_do_not_need_does_not_matter(
    family: Family,
    pool: str,
    edit: Callable[[Tensors], object],
    copy: Copy,
    merged: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    source = copy(family)
    edit_tensors(source / BASE, edit)
    assert run("merge", source, tmp_path / "out", "--pool", pool, "--dtype", "float32")[0] == 0
    assert read_variant(tmp_path / "out" / pool).digest == read_variant(merged / pool).digest


@pytest.mark.parametrize(
    ("family", "name", "tensor", "says"),
    [
        (V5_SMALL, UP, None, f"missing, without its other half: {UP}"),
        (V5_NANO, "layers.0.mlp.up_proj.weight", None, "layers.0.mlp.up_proj.weight"),
        (V5_NANO, "norm.weight", None, "norm.weight"),
        (V3, f"{QKV}.0.lora_A", None, f"missing, without its other half: {QKV}.0.lora_A"),
        (V3, f"{QKV}.original", None, f"{QKV}.original"),
        (V3, f"{WORDS}.0.lora_A", torch.zeros(4, 2048, 4), "is [4, 2048, 4], should be [5, 2048, 4]"),
        (V3, f"{QKV}.1.lora_A", torch.zeros(1), f"unexpected: {QKV}.1.lora_A"),
        (V3, f"{QKV}.original", torch.zeros(4), f"{QKV}.0.lora_A is [5, 4, 64], should be [5, 4]"),
        (V3, "odd", torch.zeros(1, dtype=torch.int8), "quantized"),
    ],
)
def test_damaged_sources_are_refused(
    family: Family, name: str, tensor: torch.Tensor | None, says: str, copy: Copy, refused: Refused
) -> None:
    """Without the tensor, or with another one."""
    source = copy(family)

    def edit(tensors: Tensors) -> None:
        tensors.pop(name, None)
        tensors |= {} if tensor is None else {name: tensor}

    edit_tensors(source / (RETRIEVAL if name == UP else BASE), edit)
    assert says in refused(source)


@pytest.mark.parametrize(
    ("family", "values", "says"),
    [
        (V3, {"lora_adaptations": ["separation"] * 5}, "retrieval-query"),
        (V3, {"lora_rank": None}, "lora_rank"),
        (V5_SMALL, {"num_hidden_layers": 2}, "layers.1.self_attn.q_proj"),
        (V5_SMALL, {"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_config_that_does_not_fit_is_refused(
    family: Family, values: dict[str, object], says: str, copy: Copy, refused: Refused
) -> None:
    source = copy(family)
    edit_json(source / "config.json", **values)
    assert says in refused(source)


def test_vllm_knows_every_architecture() -> None:
    from triptych.workers.plugin import MODELS

    assert {family.architecture for family in KNOWN} == MODELS.keys()


@every_family
def test_tiny_checkpoint_has_real_sizes(family: Family, tmp_path: Path, run: Run) -> None:
    assert run("tiny", tmp_path / "tiny", "--model", family.name)[0] == 0
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["hidden_size"] == family.dimensions
    tokenizer = Tokenizer.from_file(str(tmp_path / "tiny" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= config["vocab_size"]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) < 30e6
