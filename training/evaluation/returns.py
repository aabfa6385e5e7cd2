"""What the recorded episodes earned, discounted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset

Doubles = NDArray[np.float64]


def returns_to_go(
    rewards: NDArray[np.floating],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    discount: float,
    tails: NDArray[np.floating] | None = None,
) -> Doubles:
    """The discounted sum of rewards from each step to the end of its episode, (N,).

    Args:
        rewards: (N,).
        starts, ends: first row and one past the last row of each episode, (E,).
        discount: gamma.
        tails: what is still to come after the last step of each episode, (E,); None for nothing.
    """
    returns = np.empty(len(rewards))
    later = np.zeros(len(starts)) if tails is None else np.asarray(tails, np.float64).copy()
    # All episodes at once, from their last steps backwards.
    for back in range(int((ends - starts).max())):
        rows = ends - 1 - back
        inside = rows >= starts
        later[inside] = rewards[rows[inside]] + discount * later[inside]
        returns[rows[inside]] = later[inside]
    return returns


@dataclass(frozen=True)
class Recorded:
    """What the behaviour earned.

    Attributes:
        returns: discounted sum of each episode's rewards, (E,).
        cut_off: mean of what gamma leaves of the time after an episode that did not end by a
            terminal: 0 where nothing is missing from its return, near 1 where nearly all is.
    """

    returns: Doubles
    cut_off: float

    @classmethod
    def of(cls, data: Dataset, discount: float) -> Recorded:
        """From episodes."""
        starts, ends = data.episodes
        unfinished = ~data.terminals[ends - 1]
        weight = unfinished * discount ** (ends - starts).astype(np.float64)
        returns = returns_to_go(data.rewards, starts, ends, discount)
        return cls(returns[starts], float(weight.mean()))
