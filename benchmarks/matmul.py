"""This machine's rate of matrix products, which other benchmarks measure themselves against.

``python -m benchmarks.matmul`` prints the float32 and bfloat16 rates on all cores of this process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from iscale.engine.machine import all_cores

SIDE = 2048
GPU_SIDE = 8192


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of each call, after one that is not timed."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def matmul_rate(dtype: torch.dtype = torch.float32, repeats: int = 10, device: str = "cpu") -> float:
    """Operations per second of a large square product: the best of some, since others may use the machine."""
    side = SIDE if device == "cpu" else GPU_SIDE
    a, b = (torch.rand(side, side, dtype=torch.float32).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return 2 * side**3 / min(seconds(product, repeats))


def main() -> None:
    """Print both rates, and how they vary."""
    with all_cores() as cores:
        for dtype in (torch.float32, torch.bfloat16):
            rates = [matmul_rate(dtype, 5) / 1e9 for _ in range(5)]
            print(
                f"{dtype}: {max(rates):.0f} GFLOP/s on {cores} threads "
                f"(median of 5 tries {statistics.median(rates):.0f}, least {min(rates):.0f})"
            )


if __name__ == "__main__":
    main()
