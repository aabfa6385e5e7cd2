"""Intervals by drawing whole episodes again: steps of one episode are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2_000
COVERAGE = 0.95
CHUNK = 2_000_000
"""Counts held at once."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the middle 95 % of its bootstrap draws."""

    mean: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0

    @property
    def is_negative(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0


def bootstrap_mean(values: NDArray[np.floating], seed: int = 0) -> Interval:
    """The mean over episodes and its percentile interval.

    Two calls with one seed and as many episodes draw the same episodes, so the difference of
    two policies is an interval of `values_a - values_b`: what an episode's start does to
    both cancels.

    Args:
        values: one value for each episode, (E,); or (M, E) from M estimators that were fitted on
            M resamples of the data, one of which, drawn at random, then makes each draw.
        seed: decides the draws.
    """
    table = np.atleast_2d(np.asarray(values, np.float64))
    members, episodes = table.shape
    rng = np.random.default_rng(seed)
    member = rng.integers(members, size=DRAWS)
    draws = np.empty(DRAWS)
    size = max(1, CHUNK // episodes)
    for start in range(0, DRAWS, size):
        rows = member[start : start + size]
        counts = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=len(rows))
        draws[start : start + size] = np.einsum("de,de->d", counts, table[rows]) / episodes
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(table.mean()), float(low), float(high))
