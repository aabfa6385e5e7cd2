"""The inner loop: draw rows, update, keep the losses; the same for every algorithm.

Training goes block by block. Within a block nothing is read back from torch, so no step
waits for a number that only a log needs. The rows of a block follow from (seed, block)
alone: a resumed run draws them again, and a diverged one can show its batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.learning.batch import Batch, unpack
from training.learning.bc import Bc
from training.learning.config import TrainConfig
from training.learning.iql import Iql


class Learner(Protocol):
    """What the loop, the checkpoint and the export need of an algorithm.

    Attributes:
        loss_names: what `update` returns, in order.
        action_size: columns of `Batch.actions`.
        optimisers: by name; their states go into the checkpoint.
    """

    loss_names: tuple[str, ...]
    action_size: int
    optimisers: dict[str, Optimizer]

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step on every network; returns its losses, one for each loss name."""

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the losses and what explains them, on transitions not trained on."""

    def deployed(self) -> nn.Module:
        """Returns what acts: normalised observations (B, O) to actions (B, A) in [-1, 1]."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all networks' weights."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Sets all networks' weights."""


def create_learner(config: TrainConfig, observation_size: int, action_size: int) -> Learner:
    """Returns the networks of `config.algorithm`, initialised from `config.seed`."""
    rng = torch.Generator().manual_seed(config.seed)
    algorithm = Iql if config.algorithm == "iql" else Bc
    return algorithm(config, observation_size, action_size, rng)


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
        rows: which transitions form each batch, shape (K, B).
        first_step: updates taken before the block.

    Returns:
        The losses of every update, shape (K, len(learner.loss_names)).
    """
    losses = [
        learner.update(unpack(data.index_select(0, indices), learner.action_size), first_step + i)
        for i, indices in enumerate(rows)
    ]
    return torch.stack(losses)
