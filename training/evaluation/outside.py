"""The share of steps outside the data's support, by the statistics that bundles carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.format import Support
from training.datasets.dataset import Dataset
from training.evaluation.judged import Judged, policy_actions, recorded_actions
from training.support import fit_support, mahalanobis


def outside_support(judged: Judged) -> dict[str, float]:
    """Shares of the judging steps beyond the threshold of the run's own held-out episodes.

    Returns:
        `states` of the states alone, `recorded_pairs` of states with the recorded action,
        `policy_pairs` of states with the policy's. On the episodes that gave the threshold
        the first two are small by construction; elsewhere they tell how new the data is.
    """
    run, data = judged.run, judged.episodes
    known = [
        _with_actions(part, recorded_actions(run, part)) for part in (judged.seen, judged.reference)
    ]
    pairs = fit_support(known[0], known[1])
    recorded = _with_actions(data, recorded_actions(run, data))
    chosen = _with_actions(data, policy_actions(run, data.observations))
    return {
        "states": _share(data, fit_support(judged.seen, judged.reference)),
        "recorded_pairs": _share(recorded, pairs),
        "policy_pairs": _share(chosen, pairs),
    }


def _with_actions(data: Dataset, actions: NDArray[np.float32]) -> Dataset:
    """A dataset whose observations go on with an action, so that support is that of pairs."""
    pairs = np.hstack([data.observations, actions])
    return replace(data, observations=pairs, contract=None)


def _share(data: Dataset, support: Support) -> float:
    distances = mahalanobis(data.observations, np.array(support.mean), np.array(support.precision))
    return float((distances > support.threshold).mean())
