"""Prints the rate of a large matrix product in TFLOP/s: bfloat16 on a GPU, float32 on a CPU.

python -m loadtests.bench.matmul
"""

import time

import torch

SECONDS = 2.0


def main() -> None:
    """Multiply square matrices for some seconds; the best of several rounds counts."""
    gpu = torch.cuda.is_available()
    side, device, dtype = (8192, "cuda", torch.bfloat16) if gpu else (1024, "cpu", torch.float32)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = 0.0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        begin = time.monotonic()
        for _ in range(10):
            product = one @ other
        # Waits for the GPU.
        float(product[0, 0])
        best = max(best, 10 * 2 * side**3 / (time.monotonic() - begin))
    print(best / 1e12)


if __name__ == "__main__":
    main()
