"""Transitions packed row by row, so that a batch is one gather instead of five."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.datasets.dataset import Dataset
from training.datasets.scaling import Normaliser, to_unit
from training.learning.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Batch:
    """B transitions as the losses see them: normalised, actions in (-1, 1).

    Attributes:
        observations, next_observations: (B, O).
        actions: (B, A).
        state_actions: observations and actions side by side, (B, O + A), the critics' input.
        rewards: scaled and shifted, (B,).
        masks: 0 at a terminal and 1 elsewhere, a timeout included, (B,).
    """

    observations: Tensor
    actions: Tensor
    state_actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    masks: Tensor


def pack(dataset: Dataset, normaliser: Normaliser, config: TrainConfig) -> Tensor:
    """Returns all transitions as rows [s, a, s', r, mask], (N, 2 O + A + 2) float32."""
    columns = [
        normaliser(dataset.observations),
        to_unit(dataset.actions, dataset.action_low, dataset.action_high),
        normaliser(dataset.next_observations),
        (config.reward_scale * dataset.rewards + config.reward_shift)[:, None],
        1.0 - dataset.terminals[:, None],
    ]
    return torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind"))


def unpack(rows: Tensor, action_size: int) -> Batch:
    """Returns packed rows as a batch of views; nothing is copied."""
    o, a = (rows.shape[1] - action_size - 2) // 2, action_size
    return Batch(
        observations=rows[:, :o],
        actions=rows[:, o : o + a],
        state_actions=rows[:, : o + a],
        next_observations=rows[:, o + a : 2 * o + a],
        rewards=rows[:, -2],
        masks=rows[:, -1],
    )
