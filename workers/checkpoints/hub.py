"""Finds a model: a local folder, or a download from the Hugging Face hub."""

import re
from pathlib import Path
from typing import NamedTuple

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.variant import identify, snapshot_revision
from triptych.workers.shared.families import Family

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What a merge reads, of any layout.
_SOURCE = [layout.CONFIG, layout.INDEX, layout.PREPROCESSOR, "model*.safetensors", "adapters/*"]
_SOURCE += layout.TOKENIZER_FILES
# What a worker reads. Many repositories also hold gigabytes of ONNX.
_SERVED = ["*.json", "*.txt", "*.safetensors", "*.bin"]
PINNED = {
    "jinaai/jina-embeddings-v4": "853c867b65b749f3c3c72a06868140d842e04f06",
    "jinaai/jina-embeddings-v5-text-nano": "8a7f00aac812071b69403df470f1038ec85f8925",
}
"""The revisions that were looked at, by Hugging Face id; other ids give their newest."""


class FetchError(CheckpointError):
    """A model cannot be fetched. The hub may answer later."""


class Source(NamedTuple):
    """A base with adapters on disk. `name` is what the user asked for, `revision` its commit if known."""

    folder: Path
    family: Family
    name: str
    revision: str | None


def resolve_source(name: str, revision: str | None) -> Source:
    """The source of a merge: a folder, or a Hugging Face id, which is fetched (1 to 8 GB).

    `revision` is a commit, tag or branch on the hub, by default the one in `PINNED`. Raises `CheckpointError`
    if it is no base with adapters.
    """
    folder = Path(name)
    if not folder.exists():
        folder = _fetch(name, revision or PINNED.get(name), _SOURCE)
    elif revision is not None:
        raise CheckpointError(f"{name} is a folder; a revision needs a Hugging Face id")
    else:
        name = str(folder.absolute())
    kind, why_not, family = identify(folder)
    if kind in ("variant", "official", "published"):
        raise CheckpointError(f"{folder} needs no merge; serve it as it is")
    if kind != "upstream" or family is None:
        raise CheckpointError(f"{folder} {why_not}")
    said = load_json(folder / layout.CONFIG).get("_commit_hash")
    return Source(folder, family, name, snapshot_revision(folder) or said)


def resolve_folder(model: str, revision: str | None) -> Path:
    """The folder of `WORKER_MODEL`; a Hugging Face id is downloaded. Raises `CheckpointError`."""
    folder = Path(model)
    try:
        return folder if folder.is_dir() else _fetch(model, revision, _SERVED)
    except CheckpointError as error:
        raise type(error)(f"WORKER_MODEL: {error}") from error


def _fetch(name: str, revision: str | None, only: list[str]) -> Path:
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"{name} is neither a folder nor a Hugging Face id")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=only))
    # The errors of the hub client have no common base, and differ between its versions.
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise FetchError(
            f"{name} cannot be fetched: {error}\n"
            f"On a machine that reaches the hub, run `hf download {name}{at} --local-dir DIR`; copy DIR to "
            "this machine and name it instead. HF_ENDPOINT sets a mirror, HF_TOKEN a token."
        ) from error
