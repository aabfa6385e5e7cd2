"""The inner loop: draw rows, update, keep the losses; the same for every algorithm.

Training goes block by block. Within a block nothing is read back from torch, so no step
waits for a number that only a log needs. The rows of a block follow from (seed, block)
alone: a resumed run draws them again, and a diverged one can show its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.learning.batch import Batch, unpack
from training.learning.bc import Bc
from training.learning.captured import CapturedUpdates
from training.learning.config import ConfigError, TrainConfig
from training.learning.cql import Cql
from training.learning.fast import FastIql, obstacle
from training.learning.iql import Iql

# Packed transitions, the rows of each batch (K, B), updates taken before -> losses (K, ...).
BlockRunner: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]


class Learner(Protocol):
    """What the loop, the checkpoint and the export need of an algorithm.

    Attributes:
        loss_names: what `update` returns, in order.
        action_size: columns of `Batch.actions`.
        optimisers: by name; their states go into the checkpoint.
        generators: by name, of whatever an update draws; likewise.
    """

    loss_names: tuple[str, ...]
    action_size: int
    optimisers: dict[str, Optimizer]
    generators: dict[str, torch.Generator]

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step on every network; returns its losses, one for each loss name."""

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the losses and what explains them, on transitions not trained on."""

    def adapt(self, held_out: Mapping[str, float]) -> None:
        """Hears of the newest held-out losses; what it changes is part of `state_dict`."""

    def deployed(self) -> nn.Module:
        """Returns what acts: normalised observations (B, O) to actions (B, A) in [-1, 1]."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all networks' weights."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Sets all networks' weights."""


def create_learner(
    config: TrainConfig,
    observation_size: int,
    action_size: int,
    choices: Tensor | None = None,
    device: torch.device | None = None,
) -> Learner:
    """Returns the networks of `config.algorithm`, initialised from `config.seed`.

    Args:
        choices: the values of a discrete action, see `training.learning.discrete.unit_choices`;
            None for a continuous one.
        device: where it trains, see `training_device`; a CPU unless given.

    Raises:
        ConfigError: the algorithm is not made for such actions.
    """
    rng = torch.Generator().manual_seed(config.seed)
    match config.algorithm:
        case "iql":
            iql = Iql(config, observation_size, action_size, rng, choices).to(device)
            return FastIql([iql]) if obstacle(config, choices) is None else iql
        case "bc":
            return Bc(config, observation_size, action_size, rng, choices)
        case "cql" if choices is None:
            return Cql(config, observation_size, action_size, rng)
    raise ConfigError(
        f"algorithm 'cql' is for continuous actions, this one is one of {len(choices)} choices: "
        f"use iql or bc"
    )


def training_device(config: TrainConfig, choices: Tensor | None = None) -> torch.device:
    """Returns where a run of this config trains.

    Raises:
        ConfigError: it asks for a GPU or for bfloat16 where that cannot be had.
    """
    readable = obstacle(config, choices)
    if readable is not None and (config.device == "cuda" or config.precision != "float32"):
        key = "device" if config.device == "cuda" else "precision"
        raise ConfigError(
            f"{key} {getattr(config, key)!r} needs the fast update, which does not do {readable}: "
            f"leave out one of the two"
        )
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            "device 'cuda': torch sees no NVIDIA GPU here: use cpu or auto, or install torch with "
            "CUDA and a driver"
        )
    on_gpu = has_gpu and config.device != "cpu" and readable is None
    return torch.device("cuda" if on_gpu else "cpu")


def draw_block(config: TrainConfig, block: int, rows: int) -> Tensor:
    """Returns the row numbers of one block of updates, uniform with replacement.

    Args:
        config: gives seed, batch size and the block's length, `log_every`.
        block: number of the block, from 0.
        rows: how many transitions there are to draw from.

    Returns:
        int64, shape (log_every, batch_size).
    """
    rng = np.random.default_rng([config.seed, block])
    return torch.from_numpy(rng.integers(rows, size=(config.log_every, config.batch_size)))


def run_block(learner: Learner, data: Tensor, rows: Tensor, first_step: int) -> Tensor:
    """Takes one update for each row of `rows`.

    Args:
        learner: updated in place.
        data: packed transitions, see `training.learning.batch.pack`.
        rows: which transitions form each batch, shape (K, B), or (K, S, B) for S members.
        first_step: updates taken before the block.

    Returns:
        The losses of every update, shape (K, len(learner.loss_names)).
    """
    losses = []
    for i, indices in enumerate(rows):
        batch = data.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        losses.append(learner.update(unpack(batch, learner.action_size), first_step + i))
    return torch.stack(losses)


def block_runner(learner: Learner, device: torch.device) -> BlockRunner:
    """Returns `run_block` of this learner: (data, rows, first step) to losses, on the CPU."""
    if isinstance(learner, FastIql) and device.type == "cuda":
        return CapturedUpdates(learner).run
    return partial(run_block, learner)
