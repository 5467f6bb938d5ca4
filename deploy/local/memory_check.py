"""Checks before anything is downloaded or merged that the GPUs have enough memory for the workers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from triptych.deploy.common.gpu_memory import verdict, weights_gib
from triptych.deploy.common.variants import Models
from triptych.deploy.local.specs import PlanError
from triptych.deploy.local.supervisor import Spec
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.strict_settings import read_settings


def check_memory(
    workers: Sequence[tuple[PoolName, Spec]], models: Models, gpu_memory: Mapping[str, float]
) -> None:
    """Raises `PlanError` when an engine cannot start in its share of a GPU; `gpu_memory` is in GiB.

    GPUs and weights of unknown size are not checked.
    """
    sharing = Counter(spec.gate for _, spec in workers)
    for name, spec in workers:
        gpus = spec.env["CUDA_VISIBLE_DEVICES"].split(",")
        # The other settings are the operator's, from the environment.
        own = {"model": models.folders[name], "task": name}
        if share := spec.env.get("WORKER_GPU_MEMORY_UTILIZATION"):
            own["gpu_memory_utilization"] = share
        among = sharing[spec.gate]
        found = verdict(
            read_settings(WorkerSettings, **own),
            1 / among if among > 1 else len(gpus),
            _weights(name, models),
            min((gpu_memory.get(gpu) for gpu in gpus), key=lambda gib: gib or 0),
        )
        if found.holds == "no":
            shared = f" {among} workers share GPU {gpus[0]}." if among > 1 else ""
            raise PlanError(
                f"{spec.name} cannot start: {found.text}.{shared} Serve fewer pools (DEPLOY_POOLS=code), "
                "use more or larger GPUs (DEPLOY_GPUS), take shorter inputs (WORKER_MAX_TOKENS), or the demo "
                "(DEPLOY_MODEL=demo)"
            )


def _weights(name: PoolName, models: Models) -> float | None:
    """GiB of a pool's weights, or of the checkpoint that they will be merged from, which is the same size."""
    if name in models.demo:
        return None
    found = weights_gib(models.folders[name], name)
    if found is None and name in models.sources:
        return weights_gib(models.sources[name], name)
    return found
