"""The checkpoints of the pools, and which are made first."""

from pathlib import Path

from deploy.common.variants import choose
from deploy.settings import DeploySettings


def titles(settings: DeploySettings, has_gpu: bool = False) -> list[str]:
    return [step.title for step in choose(settings, has_gpu).steps]


def test_the_demo_is_the_default_without_gpu(tmp_path: Path) -> None:
    settings = DeploySettings(state=tmp_path)
    models = choose(settings, has_gpu=False)
    assert models.demo
    assert [step.argv[3] for step in models.steps] == ["tiny", "merge"]
    (tmp_path / "demo/upstream").mkdir(parents=True)
    for folder in models.folders.values():
        Path(folder).mkdir(parents=True)
        (Path(folder) / "variant.json").touch()
    assert choose(settings, has_gpu=False).steps == ()


def test_only_missing_variants_are_merged(tmp_path: Path) -> None:
    settings = DeploySettings(state=tmp_path)
    (tmp_path / "demo/variants/code").mkdir(parents=True)
    (tmp_path / "demo/variants/code/variant.json").touch()
    merge = choose(settings, has_gpu=False).steps[-1]
    assert [task for flag, task in zip(merge.argv, merge.argv[1:], strict=False) if flag == "--task"] == [
        "retrieval",
        "text-matching",
    ]


def test_the_published_model_needs_a_gpu() -> None:
    models = choose(DeploySettings(), has_gpu=True)
    assert not models.demo
    [merge] = models.steps
    assert "jinaai/jina-embeddings-v4" in merge.argv
    assert models.folders["code"] == ".triptych/variants/jinaai--jina-embeddings-v4/code"


def test_the_demo_with_a_gpu() -> None:
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
