"""Training a policy from a dataset into a run folder."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from training.datasets.dataset import Dataset, load_dataset, split_episodes
from training.datasets.returns import best_episodes, scale_to_span
from training.datasets.scaling import Normaliser
from training.learning.batch import every_nth, pack, pack_in_parts, packed_width
from training.learning.checkpoint import Origin, save_checkpoint
from training.learning.config import ConfigError, TrainConfig
from training.learning.discrete import unit_choices
from training.learning.fast import obstacle
from training.learning.learner import (
    block_runner,
    create_learner,
    training_device,
)
from training.learning.metrics import Report, terminal_report
from training.learning.run import CHECKPOINT, CONFIG, Run, begin_run, load_run, resume_run
from training.learning.session import DivergenceError as DivergenceError
from training.learning.session import Session, checkpoint_of
from training.learning.store import (
    TRANSITIONS,
    Store,
    lies_on_disk,
    open_shuffled,
    write_shuffled,
)

HELD_OUT_ROWS = 10_000  # of a large held-out set, evenly spaced, are enough for its losses

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
    dataset = load_dataset(dataset_path)
    config = resolve(config, dataset)
    training_data, held_out_data = split_run(dataset, config)
    normaliser = _normaliser(training_data, config)
    origin = Origin.of(config, dataset, dataset_path, normaliser)
    choices = unit_choices(dataset.contract)
    device = training_device(config, choices)
    learner = create_learner(config, *_sizes(dataset), choices, device)
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
            "update": _which_update(config, obstacle(config, choices), device),
        }
        begin_run(out, origin, summary, force=force)
        checkpoint = checkpoint_of(0, origin, learner, {})
        save_checkpoint(out / CHECKPOINT, checkpoint)  # so that any interruption can be resumed
    held_out = None
    if held_out_data is not None:
        every = -(-len(held_out_data) // HELD_OUT_ROWS)
        held_out = pack(every_nth(held_out_data, every), normaliser, config).to(device)
    store = _store(out, training_data, normaliser, config, device)
    session = Session(out, origin, learner, block_runner(learner, device), store, held_out)

    shown: AbstractContextManager[Report] = (
        terminal_report(checkpoint.step, config.steps)
        if progress is None
        else nullcontext(progress)
    )
    with shown as report, _interruptible() as interrupted:
        step = session.advance(checkpoint, report, interrupted)
    if step == config.steps:
        (out / TRANSITIONS).unlink(missing_ok=True)
    else:
        logger.warning(
            f"stopped at step {step} of {config.steps}, checkpoint saved; go on with: iql-ros "
            f"train {dataset_path} --out {out} --config {out / CONFIG} --resume"
        )
    return load_run(out)


def split_run(dataset: Dataset, config: TrainConfig) -> tuple[Dataset, Dataset | None]:
    """Returns the training and held-out episodes that a run of this config uses."""
    rng = np.random.default_rng(config.seed)
    training_data, held_out_data = split_episodes(dataset, config.held_out_fraction, rng)
    return best_episodes(training_data, config.best_fraction), held_out_data


def resolve(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Returns the config with what the dataset decides: `return_span` sets `reward_scale`.

    Raises:
        DatasetError: all returns are equal, so that they span nothing.
        ConfigError: both are given, and they differ.
    """
    if config.return_span is None:
        return config
    scale = scale_to_span(dataset, config.return_span)
    if config.reward_scale not in (1.0, scale):
        raise ConfigError(
            f"reward_scale {config.reward_scale:g} is given, and return_span "
            f"{config.return_span:g} makes it {scale:g} on this dataset: leave one of them out "
            f"(return_span: null)"
        )
    return config.model_copy(update={"reward_scale": scale})


def _store(
    out: Path, data: Dataset, normaliser: Normaliser, config: TrainConfig, device: torch.device
) -> Store:
    shape = len(data), packed_width(data)
    if not lies_on_disk(config, *shape):
        return Store(pack(data, normaliser, config).to(device))
    path = out / TRANSITIONS
    if not path.exists():  # else the run is resumed
        parts = pack_in_parts(data, normaliser, config)
        write_shuffled(path, parts, *shape, config.seed)
    return open_shuffled(path, *shape)


def _which_update(config: TrainConfig, readable: str | None, device: torch.device) -> str:
    """Says for `run.json` which of the two updates trains, and why."""
    if readable is None:
        return f"fast, {config.precision}, {device}"
    return f"readable, for {readable}, float32, {device}"


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
