"""Prints the rate of a large matrix product in TFLOP/s: bfloat16 on a GPU, float32 on a CPU.

python -m loadtests.bench.matmul
"""

import torch
from torch.utils.benchmark import Timer

SECONDS = 2.0

if __name__ == "__main__":
    gpu = torch.cuda.is_available()
    side, device, dtype = (8192, "cuda", torch.bfloat16) if gpu else (1024, "cpu", torch.float32)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timer = Timer("one @ other", globals=globals(), num_threads=torch.get_num_threads())
    rounds = timer.blocked_autorange(min_run_time=SECONDS)
    print(2 * side**3 / min(rounds.times) / 1e12)
