"""Time of one engine step by items and tokens, to choose `WORKER_BATCH_ITEMS` and `WORKER_BATCH_TOKENS`.

    python -m loadtests.measurements.engine_steps VARIANT

Runs vLLM's engine in this process, without HTTP, front-end or messages.
"""

import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from loadtests.processes import ENGINE_ENVIRONMENT

# Items and tokens of each.
LOADS = [(1, 20), (8, 20), (16, 20), (32, 20), (64, 20), (128, 20), (256, 20), (1, 512), (4, 512), (16, 512)]
ROUNDS = 40


def seconds(core: Any, items: int, tokens: int) -> float:
    """Time until the engine has done all items."""
    from vllm import PoolingParams
    from vllm.v1.engine import EngineCoreRequest

    params = PoolingParams(task="embed")
    for number in range(items):
        prompt = random.choices(range(300, 1000), k=tokens)
        request = EngineCoreRequest(str(number), prompt, None, None, params, time.time(), None, None, None)
        core.add_request(*core.preprocess_add_request(request))
    begin = time.perf_counter()
    while items:
        outputs, _ = core.step_fn()
        items -= sum(len(output.outputs) for output in outputs.values())
    return time.perf_counter() - begin


def main(variant: Path) -> None:
    os.environ.update(ENGINE_ENVIRONMENT, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from workers.checkpoints.variant import read_variant
    from workers.engine_args import engine_args
    from workers.settings import WorkerSettings

    settings = WorkerSettings(model=str(variant), batch_items=256, batch_tokens=8192)
    engine: Any = LLMEngine.from_engine_args(EngineArgs(**engine_args(read_variant(variant), settings)))
    print("| items x tokens | ms a step, median | items/s |\n| --- | --- | --- |")
    for items, tokens in LOADS:
        times = [seconds(engine.engine_core.engine_core, items, tokens) for _ in range(ROUNDS + 5)]
        middle = statistics.median(times[5:])
        print(f"| {items} x {tokens} | {middle * 1e3:.1f} | {items / middle:,.0f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
