"""What a run trains on: its episodes, their scale, where it began; from one dataset and config."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.datasets.dataset import Dataset, split_episodes
from training.datasets.returns import best_episodes, scale_to_span
from training.datasets.scaling import Normaliser
from training.learning.batch import every_nth, pack, pack_in_parts, packed_width
from training.learning.checkpoint import Checkpoint, Origin, save_checkpoint
from training.learning.config import ConfigError, TrainConfig
from training.learning.discrete import unit_choices
from training.learning.fast import obstacle
from training.learning.learner import Learner, create_learner, training_device
from training.learning.run import CHECKPOINT, begin_run, resume_run
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


@dataclass(frozen=True)
class Prepared:
    """A run that has not begun, or is to go on.

    Attributes:
        out: the run folder.
        origin: what the run is started from.
        training, held_out: its episodes, the second never trained on.
        findings: what is amiss with the data, in words.
        device: where it trains.
    """

    out: Path
    origin: Origin
    training: Dataset
    held_out: Dataset | None
    findings: list[str]
    device: torch.device

    def create_learner(self) -> Learner:
        """Returns the networks, initialised from the config's seed."""
        sizes = self.training.observations.shape[1], self.training.actions.shape[1]
        choices = unit_choices(self.origin.contract)
        return create_learner(self.origin.config, *sizes, choices, self.device)

    def begin(self, learner: Learner, *, force: bool) -> Checkpoint:
        """Makes the run's folder, so that any interruption can be resumed; see `begin_run`."""
        for finding in self.findings:
            logger.warning("%s: %s", self.origin.dataset_path, finding)
        config = self.origin.config
        readable = obstacle(config, unit_choices(self.origin.contract))
        summary = {
            "transitions": len(self.training),
            "episodes": len(self.training.episodes[0]),
            "held_out_episodes": 0 if self.held_out is None else len(self.held_out.episodes[0]),
            "findings": self.findings,
            "update": _which_update(config, readable, self.device),
        }
        begin_run(self.out, self.origin, summary, force=force)
        checkpoint = checkpoint_of(0, self.origin, learner, {})
        save_checkpoint(self.out / CHECKPOINT, checkpoint)
        return checkpoint

    def resume(self, learner: Learner, file: str = CHECKPOINT) -> Checkpoint:
        """Brings `learner` to a checkpoint, the newest; see `resume_run`."""
        return resume_run(self.out, self.origin, learner, file)

    def session(self, learner: Learner, *, keeps_two: bool = False) -> Session:
        """Returns the run with its data packed; its folder must have been begun."""
        config, normaliser = self.origin.config, self.origin.normaliser
        held_out = None
        if self.held_out is not None:
            every = -(-len(self.held_out) // HELD_OUT_ROWS)
            held_out = pack(every_nth(self.held_out, every), normaliser, config).to(self.device)
        store = _store(self.out, self.training, normaliser, config, self.device)
        return Session(self.out, self.origin, learner, store, held_out, keeps_two)


def prepare(dataset: Dataset, path: Path, out: Path, config: TrainConfig) -> Prepared:
    """Splits and measures the data as a run of this config does.

    Args:
        dataset: read from `path`.
        path: of the dataset.
        out: the run folder.
        config: how to train.

    Raises:
        DatasetError: the dataset is unfit.
        ConfigError: the config does not fit the dataset or the machine.
    """
    config = resolve(config, dataset)
    training, held_out = split_run(dataset, config)
    normaliser = _normaliser(training, config)
    origin = Origin.of(config, dataset, path, normaliser)
    device = training_device(config, unit_choices(dataset.contract))
    findings = [*dataset.findings, *_constant_components(training, normaliser)]
    return Prepared(out, origin, training, held_out, findings, device)


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
