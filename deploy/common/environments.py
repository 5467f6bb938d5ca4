"""Environment variables that a deployment gives to its workers and routers."""

import json
from collections.abc import Mapping
from typing import Any

from triptych.router.access.keys import make_key

# vLLM and its imports log much that an operator cannot act on.
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore::FutureWarning"}
# vLLM's default share of a GPU's memory. Workers on one GPU divide it.
GPU_SHARE = 0.9


def gpu_share_env(part: float) -> dict[str, str]:
    """The memory setting of a worker that has `part` of a GPU; empty without a GPU or with whole ones."""
    return {"WORKER_GPU_MEMORY_UTILIZATION": f"{GPU_SHARE * part:.3f}"} if 0 < part < 1 else {}


def settings_env(prefix: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as environment variables for pydantic-settings."""
    return {
        f"{prefix}{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }


def with_own_key(env: Mapping[str, str], name: str) -> tuple[dict[str, str], str | None]:
    """A router's environment, and a key for its /ready and /metrics; None if the router takes no keys.

    Only hashes of the operator's keys are known, so it adds a key called `name`.
    """
    keys = json.loads(env.get("ROUTER_API_KEYS") or "[]")
    # A key would close a router that has none.
    if not keys and not env.get("ROUTER_API_KEYS_FILE"):
        return dict(env), None
    key, entry = make_key(name)
    return {**env, "ROUTER_API_KEYS": json.dumps([*keys, entry])}, key
