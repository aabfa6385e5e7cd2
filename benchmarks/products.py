"""One hidden layer's product, 256 x 256 x 256, by every way that torch offers on this CPU.

`training/learning/products.py` takes the ways that were fastest where this has run; where it has
not, as on a CPU with AMX, this says what to take there. One thread, microseconds, the ways in
turns: the median of many rounds. `amx` says whether the CPU has tiles, and whether this process
may use them: a container can forbid that, and oneDNN then falls back to AVX-512.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks._report import parse_arguments, progress, report
from training.learning.products import has_fast_bfloat16, onednn

SIZE, EACH = 256, 50  # rows and columns, products of a round


def main() -> None:
    """Measures, and prints the figures."""
    arguments = parse_arguments(__doc__ or "")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 20 if arguments.quick else 300
    ways = _ways()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds):
        if i % 100 == 0:
            progress(f"round {i} of {rounds}, {len(ways)} ways")
        for name, way in ways.items():
            way()  # the last way's data are in the caches
            began = time.perf_counter()
            for _ in range(EACH):
                way()
            seconds[name].append((time.perf_counter() - began) / EACH)
    report(
        "products",
        arguments.quick,
        {
            "us": {name: round(1e6 * statistics.median(s), 1) for name, s in seconds.items()},
            "amx": {
                "has_tiles": torch.cpu._is_amx_tile_supported(),
                "may_use_them": torch.cpu._init_amx(),
            },
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
    )


def _ways() -> dict[str, Callable[[], object]]:
    x, weight, bias = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE), torch.randn(SIZE)
    ways: dict[str, Callable[[], object]] = {
        "mm_float32": lambda: torch.mm(x, weight),
        "mm_float32_of_transposed": lambda: torch.mm(x.mT, weight),
        "onednn_float32": lambda: onednn(x, weight, bias, relu=True),
    }
    if has_fast_bfloat16():
        x16, weight16, bias16 = (tensor.bfloat16() for tensor in (x, weight, bias))
        ways |= {
            "mm_bfloat16": lambda: torch.mm(x16, weight16),
            "mm_bfloat16_of_transposed": lambda: torch.mm(x16.mT, weight16),
            "onednn_bfloat16": lambda: onednn(x16, weight16, bias16, relu=True),
            "onednn_bfloat16_to_float32": lambda: onednn(x16, weight16, bias16, relu=True).float(),
            "mm_float32_rounded_by_onednn": lambda: _rounded(x, weight),
        }
    return ways


def _rounded(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A float32 product that oneDNN may round to bfloat16 on the way."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, settings.fp32_precision = settings.fp32_precision, "bf16"
    try:
        return torch.mm(x, weight)
    finally:
        settings.fp32_precision = before


if __name__ == "__main__":
    main()
