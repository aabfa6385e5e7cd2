"""Do the actions precede what they cause? A check by cross-correlation.

In a dataset whose actions are one step late, the state appears to answer a command before it
was given. A policy trained on it learns to read commands off the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LAGS = range(-3, 4)
FEWEST_STEPS = 100
MOST_STEPS = 5_000
CLEAR_CORRELATION = 0.3
CLEAR_MARGIN = 0.1
"""Smooth signals correlate nearly as well one step aside; a shifted log leads by far more."""


@dataclass(frozen=True)
class Response:
    """Which state component answers an action best, and when.

    Attributes:
        action, state: numbers of the components.
        lag: steps from the action to the change that follows it best: 0 is the change during
            the action's own step, -1 the one before.
        correlation: of the action with that change.
        expected: the larger in size of the correlations at lags 0 and 1.
    """

    action: int
    state: int
    lag: int
    correlation: float
    expected: float

    @property
    def is_shifted(self) -> bool:
        """Whether the best lag is neither 0 nor 1, and clearly so."""
        size = abs(self.correlation)
        return (
            self.lag not in (0, 1)
            and size >= CLEAR_CORRELATION
            and size - abs(self.expected) >= CLEAR_MARGIN
        )


def responses(actions: Array, states: Array, usable: NDArray[np.bool_]) -> list[Response]:
    """The best response to each action component.

    Args:
        actions: of each step, shape (S, A).
        states: at the instants, shape (S + 1, X).
        usable: steps that are whole, shape (S,).

    Returns:
        One for each action that varies and some state follows; empty for fewer than 100 steps.
    """
    if usable.sum() < FEWEST_STEPS or not states.shape[1]:
        return []
    stop = int(np.searchsorted(np.cumsum(usable), MOST_STEPS)) + 1
    actions, usable = actions[:stop], usable[:stop]
    changes = np.diff(states[: stop + 1], axis=0)
    table = np.stack([_correlations(actions, changes, usable, lag) for lag in LAGS])
    zero = LAGS.index(0)
    found = []
    for action in range(actions.shape[1]):
        size = np.abs(table[:, action])
        lag, state = np.unravel_index(int(size.argmax()), size.shape)
        if size[lag, state] > 0:
            near = table[zero : zero + 2, action, state]
            expected = near[int(np.abs(near).argmax())]
            best = table[lag, action, state]
            found.append(Response(action, int(state), LAGS[lag], float(best), float(expected)))
    return found


def _correlations(actions: Array, changes: Array, usable: NDArray[np.bool_], lag: int) -> Array:
    """Correlation of each action with each change `lag` steps later, shape (A, X)."""
    size = len(usable)
    first, last = max(0, -lag), min(size, size - lag)
    k = np.arange(first, last)
    # All steps between the two must be whole, or they lie in different episodes.
    holes = np.concatenate([[0], np.cumsum(~usable)])
    low, high = np.minimum(k, k + lag), np.maximum(k, k + lag)
    k = k[holes[high + 1] == holes[low]]
    if len(k) < FEWEST_STEPS // 2:
        return np.zeros((actions.shape[1], changes.shape[1]))
    return _normalised(actions[k]).T @ _normalised(changes[k + lag])


def _normalised(values: Array) -> Array:
    """Columns of mean 0 and length 1; of zeros where a column does not vary."""
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    varies = length > 1e-9 * (1 + np.abs(values).max(axis=0)) * np.sqrt(len(values))
    return np.where(varies, centred / np.where(varies, length, 1.0), 0.0)
