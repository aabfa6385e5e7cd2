"""Training a policy from a dataset into a run folder."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch

from training.datasets.dataset import load_dataset
from training.learning.config import TrainConfig
from training.learning.learner import block_runner
from training.learning.metrics import Report, terminal_report
from training.learning.preparing import prepare
from training.learning.run import CHECKPOINT_BEFORE, CONFIG, Run, load_run
from training.learning.session import DivergenceError as DivergenceError
from training.learning.session import advance
from training.learning.store import TRANSITIONS

WHILE_TRAINING = TRANSITIONS, CHECKPOINT_BEFORE
"""Files of a run folder that a finished run has no use for."""

logger = logging.getLogger(__name__)


def train(
    dataset_path: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Report | None = None,
) -> Run:
    """Trains until `config.steps`, or until SIGINT, which saves a checkpoint first.

    Args:
        dataset_path: an HDF5 file, see `load_dataset`.
        out: the run folder.
        config: how to train; for `resume` that of the run.
        resume: go on from the checkpoint in `out`. Weights and metrics become equal, bit for
            bit, to those of a run that never stopped.
        force: replace an earlier run in `out`.
        progress: called after every block of updates; None draws on the terminal.

    Raises:
        DatasetError: the dataset is unfit.
        RunError: `out` holds a run already, or is resumed with other data or config.
        DivergenceError: a loss is not finite; its batch lies in `out/diverged.npz`.
    """
    # One thread by default: a second one beside a busy process stalls every matrix product.
    torch.set_num_threads(config.threads)
    prepared = prepare(load_dataset(dataset_path), dataset_path, out, config)
    learner = prepared.create_learner()
    checkpoint = prepared.resume(learner) if resume else prepared.begin(learner, force=force)
    session, runner = prepared.session(learner), block_runner(learner, prepared.device)

    with shown(progress, checkpoint.step, config) as report, interruptible() as interrupted:
        step = advance([session], runner, [checkpoint], report, interrupted)
    if step == config.steps:
        for file in WHILE_TRAINING:
            (out / file).unlink(missing_ok=True)
    else:
        logger.warning(
            f"stopped at step {step} of {config.steps}, checkpoint saved; go on with: iql-ros "
            f"train {dataset_path} --out {out} --config {out / CONFIG} --resume"
        )
    return load_run(out)


def shown(
    progress: Report | None, step: int, config: TrainConfig
) -> AbstractContextManager[Report]:
    """Returns what hears of every block: the caller's, or the terminal."""
    return terminal_report(step, config.steps) if progress is None else nullcontext(progress)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a question: was SIGINT received? A second SIGINT stops at once, as ever."""
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        received.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
