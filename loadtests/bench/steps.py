"""How long one engine step takes by what is in it: the choice behind `WORKER_BATCH_ITEMS` and `_TOKENS`.

    python -m loadtests.bench.steps VARIANT [--steps 40]

vLLM's engine in this process, without HTTP, front-end or messages: requests are added, then steps are run
until all are done. An interactive item waits for at least the step that is under way when it comes, so what
is looked for is the shortest step that still has nearly the best rate.
"""

import argparse
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

from loadtests.processes import ENGINE_ENVIRONMENT

# Items and tokens of each.
LOADS = [(1, 20), (8, 20), (16, 20), (32, 20), (64, 20), (128, 20), (256, 20), (1, 512), (4, 512), (16, 512)]
MOST_TOKENS = 8192


class Stepper:
    """An engine that does a step when told to."""

    def __init__(self, folder: Path) -> None:
        os.environ.update(ENGINE_ENVIRONMENT, VLLM_ENABLE_V1_MULTIPROCESSING="0")
        from vllm import PoolingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.llm_engine import LLMEngine

        from workers.checkpoints.variant import read_variant
        from workers.engine_args import engine_args
        from workers.settings import WorkerSettings

        settings = WorkerSettings(model=str(folder), batch_items=256, batch_tokens=MOST_TOKENS)
        engine = LLMEngine.from_engine_args(EngineArgs(**engine_args(read_variant(folder), settings)))
        client: Any = engine.engine_core
        self._core = client.engine_core
        self._request = EngineCoreRequest
        self._params = PoolingParams(task="embed")
        self._count = 0

    def seconds(self, items: int, tokens: int) -> float:
        """The time of the steps that these items take."""
        for _ in range(items):
            self._count += 1
            request = self._request(
                request_id=str(self._count),
                prompt_token_ids=random.choices(range(300, 1000), k=tokens),
                mm_features=None,
                sampling_params=None,
                pooling_params=self._params,
                arrival_time=time.time(),
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            )
            self._core.add_request(*self._core.preprocess_add_request(request))
        left = items
        begin = time.perf_counter()
        while left:
            outputs, _ = self._core.step_fn()
            left -= sum(len(output.outputs) for output in outputs.values())
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variant", type=Path, help="folder of a merged variant")
    parser.add_argument("--steps", type=int, default=40, help="how many of each are measured")
    arguments = parser.parse_args()
    stepper = Stepper(arguments.variant)
    print("| items | tokens each | ms a step, median (p90) | items/s |\n| --- | --- | --- | --- |")
    for items, tokens in LOADS:
        times = sorted(stepper.seconds(items, tokens) for _ in range(arguments.steps + 5))
        middle, high = statistics.median(times), times[len(times) * 9 // 10]
        print(
            f"| {items} | {tokens} | {middle * 1e3:.1f} ({high * 1e3:.1f}) | {items / middle:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
