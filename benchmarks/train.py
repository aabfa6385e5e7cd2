"""Updates per second of IQL at one thread: ours, d3rlpy's, a plain loop, the products alone.

    python -m benchmarks.train [--quick] [--peer-python PYTHON]

Observations 11, actions 3, hidden 256 x 256, batch 256. The contestants take turns in short
slices, timed in their own CPU seconds, so that whatever else runs here slows all alike; a
figure is the median over the slices, a ratio the median of the ratios within a turn. Without
--peer-python d3rlpy is left out; with it, it runs with and without `compile_graph`, and the
faster counts. `gemm_floor_*` are the update's matrix products alone, as ours makes them;
`gemm_floor_f32_mkl` as `torch.mm` does. `from_disk` trains on a file whose pages are dropped
before every block, beside the same from memory, by the wall clock. On a machine with a GPU the
captured update follows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks._report import progress, report
from benchmarks._train_contestants import Slice, plain_iql, products_alone
from training.learning.captured import CapturedUpdates
from training.learning.config import TrainConfig
from training.learning.fast import FastIql
from training.learning.iql import Iql
from training.learning.learner import draw_block, run_block
from training.learning.products import has_fast_bfloat16
from training.learning.store import TRANSITIONS, Store, open_shuffled, write_shuffled

OBSERVATIONS, ACTIONS, ROWS = 11, 3, 20_000
CONFIG = TrainConfig(hidden=(256, 256), batch_size=256, steps=1_000_000)
REPOSITORY = Path(__file__).resolve().parents[1]

# CPU seconds of a slice of so many updates.
Contestant = Callable[[int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="finish in under a minute")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has d3rlpy")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each contestant")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    updates, rounds = (10, 5) if arguments.quick else (25, arguments.rounds)
    with ExitStack() as stack:
        contestants = _contestants()
        if arguments.peer_python is not None:
            for compiled in (False,) if arguments.quick else (False, True):
                name = "d3rlpy_compiled" if compiled else "d3rlpy"
                contestants[name] = stack.enter_context(
                    _Peer(arguments.peer_python, updates, compiled=compiled)
                ).slice
        results = _race(contestants, updates, rounds)
    results |= _from_disk(arguments.quick)
    if torch.cuda.is_available():
        results |= _on_gpu(arguments.quick)
    report("train", arguments.quick, results)


def _contestants() -> dict[str, Contestant]:
    data = _transitions()
    sizes = [
        [OBSERVATIONS, *CONFIG.hidden, 1],
        [OBSERVATIONS, *CONFIG.hidden, ACTIONS],
        [OBSERVATIONS + ACTIONS, *CONFIG.hidden, 1],
    ]

    def floor(dtype: torch.dtype, *, library: bool = True) -> Slice:
        return products_alone(sizes, CONFIG.batch_size, dtype, library=library)

    slices = {
        "ours_f32": _ours(FastIql([_iql(CONFIG)]), data),
        "readable": _ours(_iql(CONFIG), data),
        "plain": plain_iql(data, ACTIONS, CONFIG.model_dump(), CONFIG.batch_size),
        "gemm_floor_f32": floor(torch.float32),
        "gemm_floor_f32_mkl": floor(torch.float32, library=False),
    }
    if has_fast_bfloat16():
        halves = CONFIG.model_copy(update={"precision": "bfloat16"})
        slices["ours_bf16"] = _ours(FastIql([_iql(halves)]), data)
        slices["gemm_floor_bf16"] = floor(torch.bfloat16)
    else:
        progress("this CPU has no bfloat16 products: they are left out")
    return {name: _timed(run) for name, run in slices.items()}


def _iql(config: TrainConfig, seed: int = 0) -> Iql:
    return Iql(config, OBSERVATIONS, ACTIONS, torch.Generator().manual_seed(seed))


def _transitions() -> torch.Tensor:
    data = torch.randn(ROWS, 2 * OBSERVATIONS + ACTIONS + 2)
    data[:, OBSERVATIONS : OBSERVATIONS + ACTIONS].tanh_()
    data[:, -1] = 1.0
    return data


def _ours(learner: FastIql | Iql, data: torch.Tensor) -> Slice:
    def several(updates: int) -> None:
        rows = draw_block(CONFIG.model_copy(update={"log_every": updates}), 0, len(data))
        run_block(learner, data, rows, 0)

    return several


def _timed(run: Slice) -> Contestant:
    def slice_(updates: int) -> float:
        began = time.process_time()
        run(updates)
        return time.process_time() - began

    return slice_


class _Peer:
    """d3rlpy in a process of its own, see `benchmarks._train_peer`."""

    def __init__(self, python: Path, updates: int, *, compiled: bool) -> None:
        # What rclpy's wheels set for this interpreter would mislead another.
        ours = ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        command = [str(python), "-W", "ignore", "-m", "benchmarks._train_peer"]
        self._process = subprocess.Popen(
            [*command, str(updates), str(int(compiled))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**kept, "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def __enter__(self) -> _Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def slice(self, _updates: int) -> float:
        """Asks for the slice that the process was started for."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the peer was started without pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"d3rlpy ended: does {self._process.args[0]!s} have it?")  # type: ignore[index]
        return float(answer)


def _race(contestants: dict[str, Contestant], updates: int, rounds: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds + 1):
        progress(f"turn {i} of {rounds}" if i else "warming up")
        for name, slice_ in contestants.items():
            taken = slice_(updates)
            if i:
                seconds[name].append(taken)

    def ratio(one: str, other: str) -> float:
        pairs = zip(seconds[one], seconds[other], strict=True)
        return round(statistics.median(b / a for a, b in pairs), 2)

    rates = {n: round(updates / statistics.median(taken), 1) for n, taken in seconds.items()}
    compiled = rates.pop("d3rlpy_compiled", None)
    peer = "d3rlpy"
    if compiled is not None and compiled > rates["d3rlpy"]:
        peer, rates["d3rlpy"] = "d3rlpy_compiled", compiled
    ours = [name for name in ("ours_f32", "ours_bf16") if name in seconds]
    others = [n for n in (peer, "plain", "readable", "gemm_floor_f32_mkl") if n in seconds]
    ratios = {f"{us} / {n.removesuffix('_compiled')}": ratio(us, n) for us in ours for n in others}
    for us in ours:
        floor = us.replace("ours", "gemm_floor")
        ratios[f"{us} / {floor}"] = ratio(us, floor)
    return {"updates_per_s": rates, "ratios": ratios, "d3rlpy_setting": peer}


def _from_disk(quick: bool) -> dict[str, object]:
    """Updates per second on transitions from memory and from disk, in turns, by the wall clock."""
    blocks, updates = (2, 10) if quick else (10, 100)
    config = CONFIG.model_copy(update={"log_every": updates})
    columns = 2 * OBSERVATIONS + ACTIONS + 2
    rows = 200_000 if quick else 4_000_000
    learners = {name: FastIql([_iql(config)]) for name in ("memory", "disk")}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    with tempfile.TemporaryDirectory(prefix="iql_ros_train_") as folder:
        path = Path(folder) / TRANSITIONS
        parts = (_transitions() for _ in range(rows // ROWS))
        write_shuffled(path, parts, rows, columns, seed=0)
        stores = {"memory": Store(_transitions()), "disk": open_shuffled(path, rows, columns)}
        for block in range(blocks + 1):
            progress(f"memory and disk, turn {block} of {blocks}")
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for name, learner in learners.items():
                began = time.perf_counter()
                data, drawn = stores[name].draw(config, block)
                run_block(learner, data, drawn, block * updates)
                if block:
                    seconds[name].append(time.perf_counter() - began)
    loss = statistics.median(m / d for m, d in zip(*seconds.values(), strict=True))
    return {"from_disk": {"file_mb": 4 * rows * columns >> 20, "speed_over_memory": round(loss, 3)}}


def _on_gpu(quick: bool) -> dict[str, object]:
    """Updates per second of the captured update, summed over the seeds, by the wall clock."""
    device = torch.device("cuda")
    data = _transitions().to(device)
    rates = {}
    for seeds in (1, 16):
        members = [_iql(CONFIG, seed).to(device) for seed in range(seeds)]
        updates = CapturedUpdates(FastIql(members))
        rates[f"captured_{seeds}_seeds"] = _gpu_rate(updates.run, data, seeds, quick)
    eager = FastIql([_iql(CONFIG).to(device)])
    rates["eager_fast"] = _gpu_rate(lambda *block: run_block(eager, *block), data, 1, quick)
    readable = _iql(CONFIG).to(device)
    rates["eager_readable"] = _gpu_rate(lambda *block: run_block(readable, *block), data, 1, quick)
    return {"gpu": torch.cuda.get_device_name(), "gpu_updates_per_s": rates}


def _gpu_rate(
    run: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    data: torch.Tensor,
    seeds: int,
    quick: bool,
) -> float:
    members = () if seeds == 1 else (seeds,)
    rows = torch.randint(len(data), (100, *members, CONFIG.batch_size)).to(data.device)
    run(data, rows, 0).cpu()
    blocks = 3 if quick else 30
    began = time.perf_counter()
    for _ in range(blocks):
        run(data, rows, 0).cpu()
    return round(seeds * blocks * len(rows) / (time.perf_counter() - began), 1)


if __name__ == "__main__":
    main()
