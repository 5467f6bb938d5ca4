"""Environment variables that a deployment gives to its workers."""

# vLLM and its imports log much that an operator cannot act on.
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore::FutureWarning"}
# vLLM's default share of a GPU's memory. Workers on one GPU divide it.
GPU_SHARE = 0.9


def gpu_share_env(part: float) -> dict[str, str]:
    """The memory setting of a worker that has `part` of a GPU; empty without a GPU or with whole ones."""
    return {"WORKER_GPU_MEMORY_UTILIZATION": f"{GPU_SHARE * part:.3f}"} if 0 < part < 1 else {}
