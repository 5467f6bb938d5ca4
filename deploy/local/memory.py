"""Whether the GPUs hold the workers that are planned: known before anything is fetched or merged for them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from deploy.local.models import Models
from deploy.local.plan import GPU_SHARE, PlanError
from deploy.local.spec import Spec
from deploy.ray.config import Pool
from deploy.ray.weights import least_gib, utilization, weights_gib
from workers.shared.contract import PoolName

# What of a worker's settings says how much memory it takes.
SETTINGS = ("gpu_memory_utilization", "kv_cache_gib", "max_tokens", "quantization", "dtype")


def check_memory(
    workers: Sequence[tuple[PoolName, Spec]], models: Models, gpu_memory: Mapping[str, float]
) -> None:
    """Raises `PlanError` when an engine cannot start in its share of a GPU; `gpu_memory` is in GiB.

    What is not known, a GPU or the size of weights, is not checked.
    """
    sharing = Counter(spec.gate for _, spec in workers)
    for name, spec in workers:
        gpus = spec.env["CUDA_VISIBLE_DEVICES"].split(",") if spec.gate else []
        weights = _weights(name, models)
        if not gpus or weights is None or not all(gpu in gpu_memory for gpu in gpus):
            continue
        pool, among = _pool(models.folders[name], spec.env), sharing[spec.gate]
        least = least_gib(name, pool, weights)
        total = min(gpu_memory[gpu] for gpu in gpus)
        # Told how large its cache is, vLLM does not look at its share.
        room = total / among if "kv_cache_gib" in pool.worker else utilization(pool) * total
        if least is not None and least > room:
            fit = int(GPU_SHARE * total / least)
            raise PlanError(
                f"{spec.name} cannot start: weights and the cache of one input take {least:.1f} GiB, and it "
                f"has {room:.1f} of the {total:.1f} GiB of GPU {gpus[0]}"
                + (f", which {among} workers share" if among > 1 else "")
                + f". Such a GPU has room for {fit or 'none'}. Serve fewer pools (DEPLOY_POOLS=retrieval), "
                "use more or larger GPUs (DEPLOY_GPUS), take shorter inputs (WORKER_MAX_TOKENS), or the demo "
                "(DEPLOY_MODEL=demo)"
            )


def _weights(name: PoolName, models: Models) -> float | None:
    """GiB of the weights that a pool loads, or of what they are yet to be made from, which is as much."""
    if models.demo:
        return None
    found = weights_gib(models.folders[name])
    return weights_gib(models.sources[name]) if found is None and name in models.sources else found


def _pool(model: str, env: Mapping[str, str]) -> Pool:
    """The worker in the words of a cluster's configuration, which the arithmetic is made for."""
    worker = {name: env[key] for name in SETTINGS if env.get(key := f"WORKER_{name.upper()}")}
    parallel = int(env.get("WORKER_TENSOR_PARALLEL") or 1)
    try:
        return Pool(model=model, gpus=parallel, tensor_parallel=parallel, worker=worker)
    except ValidationError as error:
        fault = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise PlanError(f"WORKER_ settings: {fault}") from None
