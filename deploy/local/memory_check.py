"""Checks before anything is downloaded or merged that the GPUs have enough memory for the workers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from triptych.deploy.common.gpu_memory import verdict, weights_gib
from triptych.deploy.common.variants import Models
from triptych.deploy.local.specs import PlanError
from triptych.deploy.local.supervisor import Spec
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.strict_settings import read_settings


def check_memory(workers: Sequence[Spec], models: Models, gpu_memory: Mapping[str, float]) -> None:
    """Raises `PlanError` when an engine cannot start in its share of a GPU; `gpu_memory` is in GiB.

    GPUs and weights of unknown size are not checked, nor those of the demo.
    """
    sharing = Counter(spec.gate for spec in workers)
    for spec in workers:
        pool = spec.pool
        if pool is None or pool in models.demo:
            continue
        gpus, among = spec.env["CUDA_VISIBLE_DEVICES"].split(","), sharing[spec.gate]
        model = models.folders[pool]
        # Variants are as large as the checkpoint that they will be merged from.
        weights = weights_gib(model, pool) or weights_gib(models.sources.get(pool, model), pool)
        found = verdict(
            # The other settings are the operator's, from the environment.
            read_settings(WorkerSettings, model=model, task=pool),
            1 / among if among > 1 else len(gpus),
            weights,
            min((gpu_memory.get(gpu) for gpu in gpus), key=lambda gib: gib or 0),
        )
        if found.holds == "no":
            shared = f" {among} workers share GPU {gpus[0]}." if among > 1 else ""
            raise PlanError(
                f"{spec.name} cannot start: {found.text}.{shared} Serve fewer pools (DEPLOY_POOLS=code), "
                "use more or larger GPUs (DEPLOY_GPUS), take shorter inputs (WORKER_MAX_TOKENS), or the demo "
                "(DEPLOY_MODEL=demo)"
            )
