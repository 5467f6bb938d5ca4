"""Which checkpoints are served, and what has to be made first."""

from pathlib import Path

from deploy.common.variants import choose
from deploy.settings import DeploySettings


def titles(settings: DeploySettings, has_gpu: bool = False) -> list[str]:
    return [step.title for step in choose(settings, has_gpu).steps]


def test_without_a_gpu_it_is_the_demo_which_is_made_once(tmp_path: Path) -> None:
    settings = DeploySettings(state=tmp_path)
    models = choose(settings, has_gpu=False)
    assert models.demo
    assert [step.argv[3] for step in models.steps] == ["tiny", "merge"]
    (tmp_path / "demo/upstream").mkdir(parents=True)
    for folder in models.folders.values():
        Path(folder).mkdir(parents=True)
        (Path(folder) / "variant.json").touch()
    assert choose(settings, has_gpu=False).steps == ()


def test_only_the_variants_that_are_missing_are_merged(tmp_path: Path) -> None:
    settings = DeploySettings(state=tmp_path)
    (tmp_path / "demo/variants/code").mkdir(parents=True)
    (tmp_path / "demo/variants/code/variant.json").touch()
    merge = choose(settings, has_gpu=False).steps[-1]
    assert [task for flag, task in zip(merge.argv, merge.argv[1:], strict=False) if flag == "--task"] == [
        "retrieval",
        "text-matching",
    ]


def test_with_a_gpu_it_is_the_published_model() -> None:
    models = choose(DeploySettings(), has_gpu=True)
    assert not models.demo
    [merge] = models.steps
    assert "jinaai/jina-embeddings-v4" in merge.argv
    assert models.folders["code"] == ".triptych/variants/jinaai--jina-embeddings-v4/code"


def test_the_demo_can_be_had_with_a_gpu_too() -> None:
    assert choose(DeploySettings(model="demo"), has_gpu=True).demo


def test_two_folders_of_one_name_are_merged_apart(tmp_path: Path) -> None:
    folders = []
    for parent in "ab":
        (tmp_path / parent / "upstream").mkdir(parents=True)
        settings = DeploySettings(model=str(tmp_path / parent / "upstream"))
        folders.append(choose(settings, has_gpu=False).folders["code"])
    assert len(set(folders)) == 2


def test_ready_variants_are_served_as_they_are() -> None:
    settings = DeploySettings(pools={"retrieval": 1, "code": 1}, variants={"retrieval": "a/b", "code": "/c"})
    models = choose(settings, has_gpu=False)
    assert models.folders == {"retrieval": "a/b", "code": "/c"}
    assert models.steps == ()
    assert not models.demo
