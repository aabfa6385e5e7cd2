"""Episodes that are there twice: equal ones by hash, near ones by distance."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.report.episodes import Episodes
from training.report.numbers import rounded

SHORTEST = 5
"""A few equal steps at rest make no duplicate."""
POINTS = 16
"""Each episode is resampled to this many points for the comparison."""
NEAR = 0.03
"""Root mean square distance, in standard deviations of each signal, below which two are near."""
LENGTHS_APART = 0.1
MOST_EPISODES = 3000
"""Comparing all pairs of more would take longer than everything else together."""
MOST_LISTED = 200


def duplicate_facts(
    observations: NDArray[Any], actions: NDArray[Any], episodes: Episodes
) -> dict[str, Any]:
    """Groups of equal episodes, and pairs of near ones among the rest.

    Args:
        observations: shape (N, O).
        actions: shape (N, A).
        episodes: E of them.

    Returns:
        `equal`: lists of episode numbers; `near`: [one, other, distance], closest first, at most
        `MOST_LISTED` of `near_count`; `near_skipped`: why near ones were not sought, or None.
    """
    scale = _Scale(observations, actions)
    groups = defaultdict(list)
    for i in np.flatnonzero(episodes.lengths >= SHORTEST):
        part = scale.rows(np.arange(episodes.first[i], episodes.stop[i]))
        groups[hashlib.sha256((np.round(part, 4) + 0.0).tobytes()).digest()].append(int(i))
    one_each = np.array([group[0] for group in groups.values()], dtype=np.int64)
    if len(one_each) > MOST_EPISODES:
        near, skipped = [], f"{len(one_each)} episodes, limit {MOST_EPISODES}"
    else:
        near, skipped = _near(scale, episodes, one_each), None
    return {
        "equal": [group for group in groups.values() if len(group) > 1],
        "near": near[:MOST_LISTED],
        "near_count": len(near),
        "near_skipped": skipped,
    }


class _Scale:
    """Rows in standard deviations of each signal, a few at a time: the whole may be large."""

    def __init__(self, *parts: NDArray[Any]) -> None:
        self._parts = parts
        self._mean, deviation = np.array([_moments(c) for part in parts for c in part.T]).T
        self._deviation = np.where(deviation > 0, deviation, 1.0)

    def rows(self, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows `at`, shape (*at.shape, O + A); NaN and infinity become the mean."""
        raw = np.concatenate([part[at] for part in self._parts], axis=-1)
        scaled = ((raw - self._mean) / self._deviation).astype(np.float32)
        return np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)


def _moments(column: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of what is finite."""
    finite = column[np.isfinite(column)]
    if not len(finite):
        return 0.0, 0.0
    return float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))


def _near(
    scale: _Scale, episodes: Episodes, chosen: NDArray[np.int64]
) -> list[list[int | float | None]]:
    """Pairs of the chosen episodes of like length whose resampled trajectories are close."""
    if len(chosen) < 2:
        return []
    lengths = episodes.lengths[chosen]
    steps = np.linspace(0, 1, POINTS)[None] * (lengths - 1)[:, None]
    at = episodes.first[chosen][:, None] + np.round(steps).astype(np.int64)
    shapes = scale.rows(at).reshape(len(chosen), -1)
    squares = (shapes**2).sum(axis=1)
    found: list[list[int | float | None]] = []
    for block in range(0, len(chosen), 256):
        own = slice(block, block + 256)
        distance = squares[own, None] + squares[None] - 2 * shapes[own] @ shapes.T
        distance = np.sqrt(np.maximum(distance, 0) / shapes.shape[1])
        alike = np.abs(lengths[own, None] - lengths) <= LENGTHS_APART * lengths
        for i, j in np.argwhere((distance < NEAR) & alike):
            if block + i < j:
                pair = int(chosen[block + i]), int(chosen[j])
                found.append([*pair, rounded(float(f"{distance[i, j]:.2g}"))])
    return sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))
