"""Checkpoint of each pool, and the commands that make missing ones."""

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triptych.deploy.settings import DeploySettings
from triptych.workers.checkpoints.layout import VARIANT
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL, Family

DEMO = "demo"
DEMO_WARNING = "This is the demo: random weights, the vectors carry no meaning."


@dataclass(frozen=True, slots=True)
class Step:
    """A command that makes a checkpoint, and what to print before it runs."""

    title: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Models:
    """What each pool's workers load: `folders` holds a folder or a Hugging Face id for each.

    `steps` have to run first, in order. `sources` are the checkpoints that folders are merged from. The pools
    of `demo` have random weights.
    """

    folders: dict[PoolName, str]
    steps: tuple[Step, ...]
    demo: frozenset[PoolName] = frozenset()
    sources: Mapping[PoolName, str] = field(default_factory=dict)


def choose(settings: DeploySettings, has_gpu: bool) -> Models:
    """The variants that are configured; the other pools get variants merged from their model's checkpoint.

    A cross-encoder is served as it is published.
    """
    folders, steps = dict(settings.variants), list[Step]()
    sources: dict[PoolName, str] = {}
    to_merge: defaultdict[Family, list[PoolName]] = defaultdict(list)
    for pool in settings.pools:
        if pool not in folders:
            to_merge[BY_POOL[pool]].append(pool)
    demo: set[PoolName] = set()
    for family, pools in to_merge.items():
        given = settings.models.get(family.key) if family.key else settings.model
        source = given or (family.names[1] if has_gpu else DEMO)
        if source == DEMO:
            demo.update(pools)
            state = settings.state / DEMO / family.key
            upstream, variants = str(state / "upstream"), state / "variants"
        else:
            upstream, variants = source, settings.state / "variants" / _slug(source)
        merged = not family.cross_encoder
        missing = [pool for pool in pools if merged and not (variants / pool / VARIANT).exists()]
        if (missing or not merged) and source == DEMO and not Path(upstream).exists():
            argv = _checkpoints("tiny", upstream, "--model", family.name)
            steps.append(Step("making a tiny random checkpoint", argv))
        if missing:
            wanted = [part for pool in missing for part in ("--pool", pool)]
            title = f"merging {upstream} into one variant for each of: {', '.join(missing)}"
            steps.append(Step(title, _checkpoints("merge", upstream, str(variants), *wanted)))
        folders |= {pool: str(variants / pool) if merged else upstream for pool in pools}
        sources |= dict.fromkeys(pools, upstream)
    return Models(folders, tuple(steps), frozenset(demo), sources)


def _checkpoints(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "triptych.workers.checkpoints", *arguments)


def _slug(source: str) -> str:
    """A readable folder name for a checkpoint, unique also for two folders of the same name."""
    if Path(source).is_dir():
        source = str(Path(source).resolve())
        return f"{Path(source).name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return re.sub(r"[^\w.-]+", "--", source)
