"""How far the policy's actions are from those in the data, and where data ends.

Distances are in units of the action's range, so 0.1 is a tenth of the way from low to high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluation.fqe import Floats

NEIGHBOURS = 10
MOST_STATES, MOST_NEIGHBOURS = 1_000, 20_000
AT_LIMIT = 0.999
"""Of the way from the middle to a limit."""


@dataclass(frozen=True)
class ActionDistance:
    """Mean over steps of root-mean-square over components, in units of the range.

    Attributes:
        to_recorded: from the action recorded in the same step.
        to_nearest: from the nearest of the actions that the data have in the 10 most
            similar states.
        recorded_to_nearest: the same for the recorded actions: what is usual.
        components: mean absolute distance to the recorded action by component, (A,).
        at_limit: share of the policy's components that stand at a limit.
        recorded_at_limit: the same for the recorded ones.
    """

    to_recorded: float
    to_nearest: float
    recorded_to_nearest: float
    components: tuple[float, ...]
    at_limit: float
    recorded_at_limit: float


def action_distance(
    states: Floats, chosen: Floats, recorded: Floats, known_states: Floats, known_actions: Floats
) -> ActionDistance:
    """Measures how far a policy's actions are from the data's.

    Args:
        states: normalised observations that judge, (K, O).
        chosen, recorded: the policy's and the recorded actions there, in [-1, 1], (K, A).
        known_states, known_actions: those of the training episodes, (N, O) and (N, A).
    """
    difference = (chosen - recorded) / 2
    few = _evenly(len(states), MOST_STATES)
    many = _evenly(len(known_states), MOST_NEIGHBOURS)
    similar = _nearest(states[few], known_states[many])
    around = known_actions[many][similar]
    return ActionDistance(
        to_recorded=float(_size(difference).mean()),
        to_nearest=float(_size((chosen[few, None] - around) / 2).min(axis=1).mean()),
        recorded_to_nearest=float(_size((recorded[few, None] - around) / 2).min(axis=1).mean()),
        components=tuple(np.abs(difference).mean(axis=0).tolist()),
        at_limit=float((np.abs(chosen) > AT_LIMIT).mean()),
        recorded_at_limit=float((np.abs(recorded) > AT_LIMIT).mean()),
    )


def _size(difference: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.sqrt(np.square(difference, dtype=np.float64).mean(axis=-1))


def _nearest(states: Floats, known: Floats) -> NDArray[np.int64]:
    """Rows of the most similar known states, (K, 10) or as many as there are."""
    distances = torch.cdist(torch.from_numpy(states), torch.from_numpy(known))
    count = min(NEIGHBOURS, len(known))
    return distances.topk(count, dim=1, largest=False).indices.numpy()


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
