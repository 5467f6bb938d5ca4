"""Which pool a worker serves."""

from pathlib import Path

import pytest

from triptych.workers.__main__ import pool_of
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.variant import Variant
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.families import V4, Family


def variant(task: str | None, family: Family = V4) -> Variant:
    """A variant; without `task` as an official folder, which does not say its pool."""
    return Variant(Path("/models/x"), family, task, "x", None, None, "bfloat16", 2048, 128, 32_769)


def settings(task: str | None) -> WorkerSettings:
    return WorkerSettings(model="/models/x", task=task)


@pytest.mark.parametrize(("folder", "setting"), [("code", None), ("code", "code"), (None, "code")])
def test_pool_of_the_folder_or_of_the_setting(folder: str | None, setting: str | None) -> None:
    assert pool_of(variant(folder), settings(setting)) == "code"


@pytest.mark.parametrize(
    ("folder", "setting", "error"),
    [
        (None, None, "set WORKER_TASK to one of text-matching, retrieval, code"),
        ("code", "retrieval", "was merged for code, WORKER_TASK says retrieval"),
        (None, "v3.base", "of jina-embeddings-v4, which cannot serve the pool v3.base"),
    ],
)
def test_wrong_pool_is_refused(folder: str | None, setting: str | None, error: str) -> None:
    with pytest.raises(CheckpointError, match=error):
        pool_of(variant(folder), settings(setting))
