"""The checkpoints of the pools, and which are made first."""

from itertools import pairwise
from pathlib import Path

from triptych.deploy.common.variants import choose
from triptych.deploy.settings import DeploySettings


def made(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "variant.json").touch()


def test_demo_is_the_default_without_gpu(tmp_path: Path) -> None:
    settings = DeploySettings(state=tmp_path)
    models = choose(settings, has_gpu=False)
    assert models.demo
    assert [step.argv[3] for step in models.steps] == ["tiny", "merge"]
    made(tmp_path / "demo/variants/code")
    (tmp_path / "demo/upstream").mkdir()
    # Only what is missing is made.
    [merge] = choose(settings, has_gpu=False).steps
    tasks = [task for flag, task in pairwise(merge.argv) if flag == "--pool"]
    assert tasks == ["retrieval", "text-matching"]
    for pool in tasks:
        made(Path(models.folders[pool]))
    assert choose(settings, has_gpu=False).steps == ()


def test_published_model_needs_a_gpu() -> None:
    models = choose(DeploySettings(), has_gpu=True)
    assert not models.demo
    [merge] = models.steps
    assert "jinaai/jina-embeddings-v4" in merge.argv
    assert models.folders["code"] == ".triptych/variants/jinaai--jina-embeddings-v4/code"
    assert choose(DeploySettings(model="demo"), has_gpu=True).demo


def test_folders_with_one_name_stay_apart(tmp_path: Path) -> None:
    folders = []
    for parent in "ab":
        (tmp_path / parent / "upstream").mkdir(parents=True)
        settings = DeploySettings(model=str(tmp_path / parent / "upstream"))
        folders.append(choose(settings, has_gpu=False).folders["code"])
    assert len(set(folders)) == 2


def test_given_variants_are_not_merged() -> None:
    settings = DeploySettings(pools={"retrieval": 1, "code": 1}, variants={"retrieval": "a/b", "code": "/c"})
    models = choose(settings, has_gpu=False)
    assert models.folders == {"retrieval": "a/b", "code": "/c"}
    assert models.steps == ()
    assert not models.demo


SEVERAL = {"retrieval": 1, "v3.base": 1, "v3.separation": 1}


def test_each_model_is_merged_from_its_own_checkpoint(tmp_path: Path) -> None:
    models = choose(DeploySettings(pools=SEVERAL, state=tmp_path), has_gpu=True)
    v4, v3 = "jinaai/jina-embeddings-v4", "jinaai/jina-embeddings-v3"
    assert [step.argv[4] for step in models.steps] == [v4, v3]
    tasks = [task for flag, task in pairwise(models.steps[1].argv) if flag == "--pool"]
    assert tasks == ["v3.base", "v3.separation"]
    assert models.folders["v3.base"] == f"{tmp_path}/variants/jinaai--jina-embeddings-v3/v3.base"
    assert models.sources == {"retrieval": v4, "v3.base": v3, "v3.separation": v3}


def test_models_may_come_from_folders_and_from_the_demo(tmp_path: Path) -> None:
    settings = DeploySettings(pools=SEVERAL, state=tmp_path, model="/v4", models={"v3": "demo"})
    models = choose(settings, has_gpu=True)
    assert models.demo
    assert models.sources["retrieval"] == "/v4"
    assert models.folders["v3.base"] == f"{tmp_path}/demo/v3/variants/v3.base"
    tiny = ("tiny", f"{tmp_path}/demo/v3/upstream", "--model", "jina-embeddings-v3")
    assert tiny in [step.argv[3:] for step in models.steps]


def test_reranker_m0_is_served_as_published(tmp_path: Path) -> None:
    pools = {"rerank-m0": 1}
    published = choose(DeploySettings(pools=pools, state=tmp_path), has_gpu=True)
    assert published.folders == {"rerank-m0": "jinaai/jina-reranker-m0"}
    assert (published.steps, published.demo) == ((), frozenset())
    demo = choose(DeploySettings(pools=pools, state=tmp_path), has_gpu=False)
    folder = tmp_path / "demo/rerank-m0/upstream"
    assert demo.folders == {"rerank-m0": str(folder)}
    [tiny] = demo.steps
    assert tiny.argv[3:] == ("tiny", str(folder), "--model", "jina-reranker-m0")
    folder.mkdir(parents=True)
    assert choose(DeploySettings(pools=pools, state=tmp_path), has_gpu=False).steps == ()
