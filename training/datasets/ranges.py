"""What -1 and 1 of a scaled action stand for, and the scaling that can be undone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.table import Table

Array = NDArray[np.float64]


def action_range(table: Table) -> tuple[Array, Array]:
    """Lower and upper limits, (A,): the contract's, else [-1, 1], else those of the data."""
    if table.contract is not None:
        return table.contract.action_low, table.contract.action_high
    actions = table.columns["actions"]
    size = actions.shape[1]
    if np.abs(actions).max() <= 1.0:
        return -np.ones(size), np.ones(size)
    low, high = actions.min(axis=0).astype(np.float64), actions.max(axis=0).astype(np.float64)
    still = low == high
    return np.where(still, low - 1.0, low), np.where(still, high + 1.0, high)


def to_unit(actions: NDArray[Any], low: Array, high: Array) -> Array:
    """SI actions (N, A) to [-1, 1], in float64 and about the middle, so that nothing is lost."""
    return np.clip((actions - _middle(low, high)) / _half(low, high), -1.0, 1.0)


def from_unit(unit: NDArray[Any], low: Array, high: Array) -> NDArray[np.float32]:
    """Undoes `to_unit`: exact if the limits are symmetric about 0, else to 1e-16 of them."""
    return (unit * _half(low, high) + _middle(low, high)).astype(np.float32)


def _middle(low: Array, high: Array) -> Array:
    return (low + high) / 2.0


def _half(low: Array, high: Array) -> Array:
    return (high - low) / 2.0
