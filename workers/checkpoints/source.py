"""Where a merge reads from: a folder in the upstream layout, or the hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.shards import load_json
from workers.checkpoints.variant import kind_of, snapshot_revision

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FETCHED = (
    layout.CONFIG,
    layout.INDEX,
    "model*.safetensors",
    layout.PREPROCESSOR,
    *layout.TOKENIZER_FILES,
    layout.ADAPTER_CONFIG,
    layout.ADAPTER_WEIGHTS,
)


@dataclass(frozen=True, slots=True)
class Source:
    """An upstream layout on disk. `name` is what it was asked for by, `revision` its commit if known."""

    folder: Path
    name: str
    revision: str | None


def resolve_source(name: str, revision: str | None) -> Source:
    """A folder as it is; what is no folder but looks like a Hugging Face id is fetched (about 8 GB).

    `revision` is a commit, tag or branch on the hub, by default the one this project was written against.
    Raises `CheckpointError` where there is no upstream layout to be had.
    """
    folder = Path(name)
    if not folder.exists():
        if not _HUB_ID.fullmatch(name):
            raise CheckpointError(f"{name} is no folder and no Hugging Face id")
        folder = _fetch(name, revision or layout.UPSTREAM_REVISION)
    elif revision is not None:
        raise CheckpointError(f"{name} is a folder: a revision can only be chosen on the hub")
    else:
        name = str(folder.absolute())
    kind = kind_of(folder)
    if kind in ("variant", "official"):
        raise CheckpointError(f"{folder} is merged already; serve it as it is")
    if kind != "upstream":
        raise CheckpointError(
            f"{folder} is not in the layout of {layout.UPSTREAM_ID} ({kind}): {layout.CONFIG}, "
            f"{layout.INDEX} with its shards, {layout.ADAPTER_WEIGHTS} and {layout.ADAPTER_CONFIG} are needed"
        )
    said = load_json(folder / layout.CONFIG).get("_commit_hash")
    return Source(folder, name, snapshot_revision(folder) or said)


def _fetch(repository: str, revision: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"fetching {repository} needs huggingface_hub: `pip install huggingface_hub`, "
            f"or give a folder that holds the checkpoint"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FETCHED)))
    # The hub client's errors share no base, and differ between its versions.
    except Exception as error:
        raise CheckpointError(
            f"{repository} at {revision} cannot be fetched: {error}\n"
            f"Where the hub can be reached, run `hf download {repository} --revision {revision} "
            f"--local-dir DIR`; bring DIR here and merge it. "
            "HF_ENDPOINT sets a mirror, HF_TOKEN a token."
        ) from error
