"""d3rlpy's IQL, one slice of updates at a time; runs in the peers' Python.

    python -m benchmarks._train_peer UPDATES COMPILE

Each line on stdin asks for a slice of UPDATES; the answer on stdout is the CPU seconds that
`fit` took for it. COMPILE 1 turns d3rlpy's `compile_graph` on.
"""

from __future__ import annotations

import sys
import time

import d3rlpy  # type: ignore[import-not-found]
import numpy as np
import torch

ROWS, OBSERVATIONS, ACTIONS, BATCH = 20_000, 11, 3, 256


def main() -> None:
    updates, compiled = int(sys.argv[1]), sys.argv[2] == "1"
    answers, sys.stdout = sys.stdout, sys.stderr  # d3rlpy logs on stdout
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    ends = np.zeros(ROWS, dtype="f4")
    ends[99::100] = 1.0
    dataset = d3rlpy.dataset.MDPDataset(
        rng.normal(size=(ROWS, OBSERVATIONS)).astype("f4"),
        np.tanh(rng.normal(size=(ROWS, ACTIONS))).astype("f4"),
        rng.normal(size=ROWS).astype("f4"),
        np.zeros(ROWS, dtype="f4"),
        timeouts=ends,
    )
    learner = d3rlpy.algos.IQLConfig(batch_size=BATCH, compile_graph=compiled).create(device="cpu")
    slices = learner.fitter(
        dataset,
        n_steps=1_000_000_000,
        n_steps_per_epoch=updates,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    for _ in sys.stdin:
        began = time.process_time()
        next(slices)
        print(time.process_time() - began, file=answers, flush=True)


if __name__ == "__main__":
    main()
