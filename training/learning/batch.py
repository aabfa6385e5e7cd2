"""Transitions packed row by row, so that a batch is one gather instead of five."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.datasets.dataset import Dataset
from training.datasets.file import COLUMNS
from training.datasets.scaling import Normaliser, to_unit
from training.learning.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Batch:
    """B transitions as the losses see them: normalised, actions in (-1, 1).

    For several seeds at once every shape has their axis in front.

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


def packed_width(dataset: Dataset) -> int:
    """Returns the columns of packed transitions, 2 O + A + 2."""
    return 2 * dataset.observations.shape[1] + dataset.actions.shape[1] + 2


def every_nth(dataset: Dataset, n: int) -> Dataset:
    """Returns rows 0, n, 2 n and so on; no longer whole episodes."""
    rows: dict[str, Any] = {name: getattr(dataset, name)[::n] for name in COLUMNS}
    return replace(dataset, **rows)


def pack_in_parts(
    dataset: Dataset, normaliser: Normaliser, config: TrainConfig, rows: int = 65_536
) -> Iterator[Tensor]:
    """Yields what `pack` returns, so many rows at a time."""
    for start in range(0, len(dataset), rows):
        stretch = slice(start, start + rows)
        part: dict[str, Any] = {name: getattr(dataset, name)[stretch] for name in COLUMNS}
        yield pack(replace(dataset, **part), normaliser, config)


def unpack(rows: Tensor, action_size: int) -> Batch:
    """Returns packed rows (..., B, W) as a batch of views; nothing is copied."""
    o, a = (rows.shape[-1] - action_size - 2) // 2, action_size
    return Batch(
        observations=rows[..., :o],
        actions=rows[..., o : o + a],
        state_actions=rows[..., : o + a],
        next_observations=rows[..., o + a : 2 * o + a],
        rewards=rows[..., -2],
        masks=rows[..., -1],
    )
