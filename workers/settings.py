"""A worker's settings: environment variables with the prefix `WORKER_`."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from triptych.workers.shared.families import BY_POOL, Pool
from triptych.workers.shared.logs import LogFormat
from triptych.workers.shared.strict_settings import StrictSettings, Token

# Engine arguments of vLLM that WORKER_ENGINE_ARGS may not set, and the setting to use instead if there is
# one.
FIXED_ENGINE_ARGS: dict[str, str | None] = {
    "model": "WORKER_MODEL",
    "revision": "WORKER_REVISION",
    "max_model_len": "WORKER_MAX_TOKENS",
    "max_num_batched_tokens": "WORKER_BATCH_TOKENS",
    "max_num_seqs": "WORKER_BATCH_ITEMS",
    "dtype": "WORKER_DTYPE",
    "quantization": "WORKER_QUANTIZATION",
    "tensor_parallel_size": "WORKER_TENSOR_PARALLEL",
    "gpu_memory_utilization": "WORKER_GPU_MEMORY_UTILIZATION",
    "kv_cache_memory_bytes": "WORKER_KV_CACHE_GIB",
    "enforce_eager": "WORKER_ENFORCE_EAGER",
}
FIXED_ENGINE_ARGS |= dict.fromkeys(
    (
        "runner",
        "convert",
        "pooler_config",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "scheduling_policy",
        "scheduler_cls",
        "distributed_executor_backend",
        "hf_overrides",
        "hf_config_path",
        "served_model_name",
        "limit_mm_per_prompt",
        "mm_processor_kwargs",
        "mm_processor_cache_gb",
        # The worker leaves these at their defaults; other values would change vectors or run code from a
        # checkpoint.
        "trust_remote_code",
        "enable_lora",
        "max_loras",
        "max_lora_rank",
        "max_cpu_loras",
        "lora_dtype",
        "lora_target_modules",
        "default_mm_loras",
        "enable_tower_connector_lora",
        "tokenizer",
        "tokenizer_mode",
        "tokenizer_revision",
        "skip_tokenizer_init",
        "kv_cache_dtype",
        "model_impl",
        "speculative_config",
        "kv_transfer_config",
        "worker_cls",
        "data_parallel_size",
        # The plugin sets it before each step.
        "long_prefill_token_threshold",
    )
)


class WorkerSettings(StrictSettings):
    """Settings of one worker process. vLLM's defaults apply to everything that is not listed here."""

    model_config = SettingsConfigDict(env_prefix="WORKER_")

    model: str = Field(
        description="Folder or Hugging Face id of a variant, as `triptych merge` writes it, or of a reranker."
    )
    revision: str | None = Field(None, description="Revision of the Hugging Face id.")
    task: Pool | None = Field(
        None,
        description="The pool, such as code, v3.base or rerank. Required for the pool rerank and if "
        "the folder does not say (official -vllm- checkpoints); must agree with the folder if it does.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on. Workers trust their callers.")
    port: int = Field(8101, ge=0, le=65535, description="Port to listen on.")
    log_format: LogFormat = Field("plain", description="plain, or json for one JSON object a line.")
    token: Token | None = Field(
        None,
        description="Secret that callers must send, the router's ROUTER_WORKER_TOKEN. Without it, everybody "
        "who reaches the port is served.",
    )
    max_tokens: int = Field(
        32768,
        ge=1024,
        description="Longest input in tokens, prefix included; capped at the model's context.",
    )
    batch_tokens: int = Field(8192, ge=64, description="Maximum tokens of one engine step.")
    batch_items: int = Field(256, ge=1, description="Maximum items of one engine step.")
    max_waiting_items: int = Field(
        2048,
        ge=1,
        description="Maximum items per priority in the worker; beyond it, the worker answers `overloaded`. "
        "Must hold several of the router's batches, or the engine idles between them.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Dtype of the engine; auto is the checkpoint's."
    )
    quantization: str | None = Field(None, description="vLLM quantization method, for example fp8.")
    tensor_parallel: int = Field(1, ge=1, description="GPUs of one engine.")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="Share of the GPU's memory (on a CPU: of RAM) for this engine."
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="Size of the key-value cache in GiB; set it if engines share a GPU. Unless "
        "WORKER_GPU_MEMORY_UTILIZATION is set too, only what the engine uses has to be free on the GPU.",
    )
    enforce_eager: bool | None = Field(
        None, description="True disables graph capture. Default: capture on a GPU, eager on a CPU."
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="More vLLM engine arguments, a JSON object. Refused: arguments that the worker sets, or "
        "that would change vectors.",
    )
    stall_seconds: float = Field(
        20,
        gt=0,
        description="Longest time without an engine step while there is work; then the worker exits, to be "
        "restarted. Steps take about half a second, except for inputs that cannot be split: an image, a "
        "cross-encoder's pair, or a text of a model whose attention looks both ways. Raise it if one of "
        "these takes longer.",
    )
    drain_seconds: float = Field(30, ge=0, description="Time to finish accepted work on SIGTERM.")

    @model_validator(mode="after")
    def _check_context(self) -> Self:
        if self.task and self.max_tokens < (least := BY_POOL[self.task].least_tokens):
            raise ValueError(f"WORKER_MAX_TOKENS: the pool {self.task} needs {least} or more")
        return self

    @field_validator("engine_args")
    @classmethod
    def _check_engine_args(cls, value: dict[str, Any]) -> dict[str, Any]:
        instead = {name: FIXED_ENGINE_ARGS[name] for name in value if name in FIXED_ENGINE_ARGS}
        fixed = [
            f"{name} is set by the worker" + (f" ({own})" if own else "") for name, own in instead.items()
        ]
        if value.get("load_format") == "dummy":
            fixed.append("load_format: dummy weights are random")
        if fixed:
            raise ValueError(f"{'; '.join(fixed)}. Remove it")
        return value
