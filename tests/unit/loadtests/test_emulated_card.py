"""The emulated card: which requests share a step, how long steps take, and what its ideal is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.loadtests.bench.sections.emulated import ideal
from triptych.loadtests.bench.servers import CARD_SECONDS, CARD_TOKENS, EMULATED, STEP_ITEMS, STEP_TOKENS

STEP_SECONDS = 0.02
# Apart, since the stand-in takes vLLM's name in its process.
PROGRAM = """
import asyncio, json, sys, time
import numpy as np
from triptych.workers.vllm_engine import Engine

engine = Engine({"model": sys.argv[1], "dtype": "float32", "hf_overrides": {"multi_vector_dimensions": 0},
                 "max_num_batched_tokens": 100, "max_num_seqs": 4})
params = engine.params("embed")
order = []

async def encode(name, tokens, priority=0):
    output = await engine.encode_tokens(list(range(tokens)), params, priority)
    order.append(name)
    return output.outputs.data.numpy()

async def steps(*requests):
    before, order[:] = engine.steps, []
    await asyncio.gather(*(encode(*request) for request in requests))
    return engine.steps - before, list(order)

async def main():
    begin = time.monotonic()
    found = {
        "items": await steps(*[(number, 10) for number in range(9)]),
        "tokens": await steps(("a", 40), ("b", 40), ("c", 40)),
        "chunks": await steps(("long", 250), ("short", 10)),
        "priority": await steps(("bulk", 90, 1), ("query", 90, 0)),
    }
    found["seconds"] = time.monotonic() - begin
    one, same, other = [await encode("", tokens) for tokens in (5, 5, 6)]
    found["vectors"] = one.shape, float(np.linalg.norm(one)), bool((one == same).all()), float(one @ other)
    cancelled = asyncio.create_task(encode("cancelled", 10))
    await asyncio.sleep(0)
    cancelled.cancel()
    found["after a cancelled one"] = await steps(("next", 10))
    found["busy"] = engine.busy
    print(json.dumps(found))

asyncio.run(main())
"""


def test_card_runs_steps_of_its_size_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64}))
    environment = os.environ | EMULATED | {"EMULATED_STEP_SECONDS": str(STEP_SECONDS)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["items"] == [3, list(range(9))], "at most four items a step"
    assert found["tokens"] == [2, ["a", "b", "c"]], "at most 100 tokens a step"
    assert found["chunks"] == [3, ["long", "short"]]
    assert found["priority"] == [2, ["query", "bulk"]]
    assert found["seconds"] >= 10 * STEP_SECONDS
    shape, norm, same, other = found["vectors"]
    assert (shape, norm, same) == ([64], pytest.approx(1), True)
    assert other < 0.9
    assert found["after a cancelled one"] == [1, ["next"]]
    assert not found["busy"]


def test_ideal_card_has_full_steps() -> None:
    step = CARD_SECONDS + STEP_TOKENS / CARD_TOKENS
    assert ideal(512) * 512 == pytest.approx(STEP_TOKENS / step)
    assert ideal(20) == pytest.approx(STEP_ITEMS / (CARD_SECONDS + STEP_ITEMS * 20 / CARD_TOKENS))
