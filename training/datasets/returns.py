"""What whole episodes earned: the best of them, and the scale of rewards that follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import DatasetError
from training.datasets.dataset import Dataset


def episode_returns(dataset: Dataset) -> NDArray[np.float64]:
    """Returns the undiscounted sum of rewards of every episode, (E,)."""
    return np.add.reduceat(dataset.rewards.astype(np.float64), dataset.episodes[0])


def best_episodes(dataset: Dataset, fraction: float) -> Dataset:
    """Returns the share of the episodes with the highest returns, at least one, in their order.

    Of equal returns the earlier episode is kept.
    """
    returns = episode_returns(dataset)
    count = max(1, round(fraction * len(returns)))
    best = np.argsort(-returns, kind="stable")[:count]
    return dataset if count == len(returns) else dataset.take(np.sort(best))


def scale_to_span(dataset: Dataset, span: float) -> float:
    """Returns the factor on rewards after which episode returns differ by at most `span`.

    Raises:
        DatasetError: all returns are equal.
    """
    returns = episode_returns(dataset)
    low, high = returns.min(), returns.max()
    if low == high:
        raise DatasetError(
            f"return_span {span:g} asks for returns to be scaled by their range, which is 0: all "
            f"{len(returns)} episode(s) return {low:g}; set return_span to null and give "
            f"reward_scale, or check the reward rule"
        )
    return float(span / (high - low))
