"""Means and 95 % intervals of returns by seed and episode.

The bootstrap draws seeds, then episodes within each. Of three seeds it makes rather too narrow
an interval; a narrow one is the stricter for the claim that ours is not below d3rlpy's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = list[list[float]]
"""Returns of every episode, for every seed."""

DRAWS = 10_000


def mean_interval(scores: Scores) -> dict[str, float]:
    """Returns `mean`, `low` and `high` of the mean over seeds."""
    return _summary(np.mean(scores), _drawn_means(scores, np.random.default_rng(0)))


def difference(ours: Scores, theirs: Scores) -> dict[str, float]:
    """Returns `mean`, `low` and `high` of our mean less theirs."""
    rng = np.random.default_rng(0)
    means = _drawn_means(ours, rng) - _drawn_means(theirs, rng)
    return _summary(np.mean(ours) - np.mean(theirs), means)


def _drawn_means(scores: Scores, rng: np.random.Generator) -> NDArray[np.float64]:
    table = np.array(scores)  # (seeds, episodes)
    seeds, episodes = table.shape
    which = rng.integers(seeds, size=(DRAWS, seeds, 1))
    return table[which, rng.integers(episodes, size=(DRAWS, seeds, episodes))].mean(axis=(1, 2))


def _summary(mean: np.floating, means: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low), "high": float(high)}
