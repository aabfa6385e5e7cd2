"""Do predicted values agree with what was then earned?

The returns are the behaviour's. Q of a policy that is better than the behaviour, and V of
IQL, an upper expectile over the behaviour's actions, belong above them: by how much is not
known. So a bias upwards is expected; an order that disagrees, or a bias downwards, is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Interval, bootstrap_mean

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Predictions against returns.

    Attributes:
        bias: mean of prediction - return at the episodes' first steps, with its interval.
        rank_correlation: Spearman's, over all steps; 0 where either does not vary.
        predicted, returned: means within each tenth of the steps, by prediction, (B,) each.
    """

    bias: Interval
    rank_correlation: float
    predicted: tuple[float, ...]
    returned: tuple[float, ...]


def calibrate(
    predicted: NDArray[np.floating], returned: NDArray[np.floating], starts: NDArray[np.int64]
) -> Calibration:
    """Compares values with returns.

    Args:
        predicted, returned: of every step, (N,).
        starts: first row of each episode, (E,).
    """
    tenths = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(predicted)))
    return Calibration(
        bias=bootstrap_mean((predicted - returned)[starts]),
        rank_correlation=spearman(predicted, returned),
        predicted=tuple(float(predicted[rows].mean()) for rows in tenths),
        returned=tuple(float(returned[rows].mean()) for rows in tenths),
    )


def spearman(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Correlation of ranks, equal values sharing theirs; 0 where either does not vary."""
    ranks = np.stack([_ranks(one), _ranks(other)])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    size = float(np.sqrt(np.square(centred).sum(axis=1).prod()))
    return float(centred[0] @ centred[1]) / size if size > 0 else 0.0


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[number]
