"""Training a policy from a dataset into a run folder."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from iql_ros.errors import IqlRosError
from training.datasets.dataset import Dataset, load_dataset, split_episodes
from training.datasets.scaling import Normaliser
from training.learning.batch import pack, unpack
from training.learning.checkpoint import Checkpoint, Origin, save_checkpoint
from training.learning.config import TrainConfig
from training.learning.learner import Learner, create_learner, draw_block, run_block
from training.learning.metrics import MetricsLog, Report, terminal_report
from training.learning.run import CHECKPOINT, CONFIG, Run, begin_run, load_run, resume_run

HELD_OUT_ROWS = 10_000  # of a large held-out set, evenly spaced, are enough for its losses

logger = logging.getLogger(__name__)


class DivergenceError(IqlRosError):
    """A loss became NaN or infinite."""


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
    dataset = load_dataset(dataset_path)
    training_data, held_out_data = split_run(dataset, config)
    normaliser = _normaliser(training_data, config)
    origin = Origin.of(config, dataset, dataset_path, normaliser)
    learner = create_learner(config, *_sizes(dataset))
    if resume:
        checkpoint = resume_run(out, origin, learner)
    else:
        findings = [*dataset.findings, *_constant_components(training_data, normaliser)]
        for finding in findings:
            logger.warning("%s: %s", dataset_path, finding)
        summary = {
            "transitions": len(training_data),
            "episodes": len(training_data.episodes[0]),
            "held_out_episodes": 0 if held_out_data is None else len(held_out_data.episodes[0]),
            "findings": findings,
        }
        begin_run(out, origin, summary, force=force)
        checkpoint = _checkpoint(0, origin, learner, {})
        save_checkpoint(out / CHECKPOINT, checkpoint)  # so that any interruption can be resumed
    held_out = None if held_out_data is None else pack(held_out_data, normaliser, config)
    session = _Session(out, origin, learner, pack(training_data, normaliser, config), held_out)

    shown: AbstractContextManager[Report] = (
        terminal_report(checkpoint.step, config.steps)
        if progress is None
        else nullcontext(progress)
    )
    with shown as report, _interruptible() as interrupted:
        step = session.advance(checkpoint, report, interrupted)
    if step < config.steps:
        logger.warning(
            f"stopped at step {step} of {config.steps}, checkpoint saved; go on with: iql-ros "
            f"train {dataset_path} --out {out} --config {out / CONFIG} --resume"
        )
    return load_run(out)


def split_run(dataset: Dataset, config: TrainConfig) -> tuple[Dataset, Dataset | None]:
    """Returns the training and held-out episodes that a run of this config uses."""
    rng = np.random.default_rng(config.seed)
    return split_episodes(dataset, config.held_out_fraction, rng)


@dataclass(frozen=True)
class _Session:
    """One process's share of a run: from a checkpoint to the end, or to an interrupt.

    Attributes:
        out: the run folder.
        origin: what the run was started from.
        learner: stands at the checkpoint.
        data, held_out: packed transitions, see `training.learning.batch.pack`.
    """

    out: Path
    origin: Origin
    learner: Learner
    data: Tensor
    held_out: Tensor | None

    def advance(
        self, checkpoint: Checkpoint, report: Report, interrupted: Callable[[], bool]
    ) -> int:
        """Trains on, block by block, and returns the step reached; it is saved."""
        config = self.origin.config
        step, newest = checkpoint.step, checkpoint.held_out
        with closing(MetricsLog(self.out, step)) as log:
            while step < config.steps and not interrupted():
                started = time.perf_counter()
                rows = draw_block(config, step // config.log_every, len(self.data))
                rows = rows[: config.steps - step]
                losses = run_block(self.learner, self.data, rows, step)
                rate = len(rows) / (time.perf_counter() - started)
                self._refuse_divergence(losses, rows, step)
                step += len(rows)
                means = dict(zip(self.learner.loss_names, losses.mean(dim=0).tolist(), strict=True))
                log.write(step, {f"train/{name}": value for name, value in means.items()})
                log.write_rate(step, rate)
                last = step == config.steps
                if self.held_out is not None and (last or step % config.evaluate_every == 0):
                    newest = self._held_out_losses(self.held_out)
                    log.write(step, {f"held_out/{name}": value for name, value in newest.items()})
                if not last and step % config.checkpoint_every == 0:
                    self._save(step, newest)
                report(step, means, rate)
            self._save(step, newest)
        return step

    def _save(self, step: int, held_out: dict[str, float]) -> None:
        checkpoint = _checkpoint(step, self.origin, self.learner, held_out)
        save_checkpoint(self.out / CHECKPOINT, checkpoint)

    def _held_out_losses(self, held_out: Tensor) -> dict[str, float]:
        every = -(-len(held_out) // HELD_OUT_ROWS)
        return self.learner.evaluate(unpack(held_out[::every], len(self.origin.action_low)))

    def _refuse_divergence(self, losses: Tensor, rows: Tensor, first_step: int) -> None:
        broken = ~losses.isfinite()
        if not broken.any():
            return
        i = int(broken.any(dim=1).int().argmax())
        name = self.learner.loss_names[int(broken[i].int().argmax())]
        dump = self.out / "diverged.npz"
        np.savez(
            dump,
            step=first_step + i,
            losses=losses[i].numpy(),
            rows=rows[i].numpy(),
            batch=self.data[rows[i]].numpy(),
        )
        raise DivergenceError(
            f"{name} is {losses[i][broken[i]][0].item()} at step {first_step + i}, a loss must be "
            f"finite; its batch lies in {dump}: check the data's scale, or lower learning_rate, "
            f"inverse_temperature or reward_scale"
        )


def _checkpoint(
    step: int, origin: Origin, learner: Learner, held_out: dict[str, float]
) -> Checkpoint:
    optimisers = {name: value.state_dict() for name, value in learner.optimisers.items()}
    return Checkpoint(step, origin, learner.state_dict(), optimisers, held_out)


def _normaliser(data: Dataset, config: TrainConfig) -> Normaliser:
    if config.normalise_observations:
        return Normaliser.fit(data.observations)
    return Normaliser.identity(data.observations.shape[1])


def _constant_components(data: Dataset, normaliser: Normaliser) -> list[str]:
    return [
        f"observation '{data.observation_names[i]}' is always {normaliser.mean[i]:g} in the "
        f"training episodes: the policy cannot have learnt what it means; its scale is left at 1"
        for i in normaliser.constant
    ]


def _sizes(dataset: Dataset) -> tuple[int, int]:
    return dataset.observations.shape[1], dataset.actions.shape[1]


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
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
