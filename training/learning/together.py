"""Several seeds of one config trained at once, each into a run folder of its own.

On a GPU a second seed is almost free: an update is bound by the launch of its kernels. On a CPU
there is nothing to gain, and seeds train as processes (`training.sweep`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from training.datasets.dataset import load_dataset
from training.learning.checkpoint import RunError, load_checkpoint
from training.learning.config import ConfigError, TrainConfig
from training.learning.discrete import unit_choices
from training.learning.expectile import LED
from training.learning.fast import FastIql, obstacle
from training.learning.iql import Iql
from training.learning.learner import Learner, block_runner
from training.learning.members import Member
from training.learning.metrics import Report
from training.learning.preparing import Prepared, prepare
from training.learning.run import CHECKPOINT, CHECKPOINT_BEFORE, Run, load_run
from training.learning.session import advance
from training.learning.train import WHILE_TRAINING, interruptible, shown

FILES = CHECKPOINT_BEFORE, CHECKPOINT

logger = logging.getLogger(__name__)


def train_together(
    dataset_path: Path,
    out: Path,
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    force: bool = False,
    progress: Report | None = None,
) -> list[Run]:
    """Trains several seeds at once, as a GPU does at almost the price of one.

    Each gets a run folder of its own, `out/seed-N`, as `train` with that seed would make it:
    the same episodes and batches, and the same numbers up to rounding. Stopped and resumed they
    come out equal to the bit.

    Args:
        dataset_path, out, config, resume, force, progress: see `train`.
        seeds: all different; that of the config does not count.

    Raises:
        ConfigError: the config is not for this, and why.
        DatasetError, RunError, DivergenceError: see `train`.
    """
    torch.set_num_threads(config.threads)
    dataset = load_dataset(dataset_path)
    _refuse_apart(config, seeds, obstacle(config, unit_choices(dataset.contract)))
    configs = [config.model_copy(update={"seed": seed}) for seed in seeds]
    runs = [prepare(dataset, dataset_path, out / f"seed-{c.seed}", c) for c in configs]
    if runs[0].device.type == "cpu":
        logger.warning("on a CPU seeds train faster as processes: iql-ros sweep --set seed=0,1,2")
    for run in runs:
        if not (resume and (run.out / CHECKPOINT).exists()):
            run.begin(run.create_learner(), force=force)
    whole = FastIql([member for run in runs for member in _members(run.create_learner())])
    members = [Member(whole, i) for i in range(len(runs))]
    files = _newest_common(runs)
    checkpoints = [run.resume(m, file) for run, m, file in zip(runs, members, files, strict=True)]
    sessions = [run.session(m, keeps_two=True) for run, m in zip(runs, members, strict=True)]
    runner, at = block_runner(whole, runs[0].device), checkpoints[0].step

    with shown(progress, at, config) as report, interruptible() as interrupted:
        step = advance(sessions, runner, checkpoints, report, interrupted)
    if step < config.steps:
        logger.warning(
            f"stopped at step {step} of {config.steps}, checkpoints saved; the same command with "
            f"--resume goes on"
        )
    else:
        for run in runs:
            for file in WHILE_TRAINING:
                (run.out / file).unlink(missing_ok=True)
    return [load_run(run.out) for run in runs]


def _newest_common(runs: Sequence[Prepared]) -> list[str]:
    """Returns for each run the file of the newest step that all of them have.

    A kill between two writes leaves some a checkpoint ahead; those go back to the one before.
    """
    files = [
        {load_checkpoint(run.out / file).step: file for file in FILES if (run.out / file).exists()}
        for run in runs
    ]
    common = set.intersection(*(set(by_step) for by_step in files))
    if not common:
        steps = ", ".join(f"{run.out.name} {sorted(f)}" for run, f in zip(runs, files, strict=True))
        raise RunError(
            f"these runs have no step in common ({steps}): train them one by one, or anew"
        )
    return [by_step[max(common)] for by_step in files]


def _members(learner: Learner) -> Sequence[Iql]:
    if not isinstance(learner, FastIql):
        raise TypeError(f"{type(learner).__name__} is not the fast update: see obstacle()")
    return learner.members


def _refuse_apart(config: TrainConfig, seeds: Sequence[int], readable: str | None) -> None:
    if len(set(seeds)) < len(seeds) or len(seeds) < 2:
        raise ConfigError(f"seeds {list(seeds)} must be two or more, all different")
    one_by_one = "train the seeds one by one (iql-ros sweep --set seed=0,1,2)"
    if readable is not None:
        raise ConfigError(
            f"seeds train together by the fast update, which does not do {readable}: {one_by_one}"
        )
    if config.expectile_schedule in LED:
        raise ConfigError(
            f"expectile_schedule {config.expectile_schedule!r} follows the held-out losses of one "
            f"run, and seeds that train together share one tau: {one_by_one}"
        )
