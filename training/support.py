"""Where the training data lies, so that the robot can tell when it is elsewhere.

Distance is Mahalanobis'. The threshold is split-conformal over the *largest* distance of
each held-out episode, so that the promise is one about episodes: one in 1 / alpha of
those like the training data raises a false alarm. A threshold on single steps would
raise several alarms in most long episodes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.format import Support
from iql_ros.errors import DatasetError
from training.datasets.dataset import Dataset

# Share of the identity mixed into the correlations. It keeps the precision finite where
# components depend on each other (a difference beside its operands), at the price of
# missing departures from such a dependence that are below 3 % of a spread.
SHRINKAGE = 1e-3


def fit_support(training: Dataset, held_out: Dataset, alpha: float = 0.05) -> Support:
    """Returns the support statistics of a dataset.

    Args:
        training: gives mean and precision.
        held_out: episodes that neither the policy nor the mean has seen; they give the threshold.
        alpha: share of false alarms to aim at. With m held-out episodes no less than
            1 / (m + 1) can be promised; the result says what is.
    """
    mean, spread, constant = _location(training.observations)
    precision = _precision((training.observations - mean) / spread, spread)
    distances = mahalanobis(held_out.observations, mean, precision)
    starts, _ = held_out.episodes
    threshold, bound = conformal_threshold(np.maximum.reduceat(distances, starts), alpha)
    if threshold == 0:
        raise DatasetError("every held-out observation equals the training mean: nothing varies")
    return Support(
        mean=tuple(mean.tolist()),
        precision=tuple(tuple(row) for row in precision.tolist()),
        threshold=threshold,
        alpha=alpha,
        false_alarm_bound=bound,
        episodes=len(starts),
        constant=tuple(np.array(training.observation_names)[constant].tolist()),
    )


def mahalanobis(
    observations: NDArray[np.floating], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances sqrt((x - mean)^T precision (x - mean)), (N,), of observations (N, O)."""
    centred = observations - mean
    return np.sqrt(np.einsum("ni,ni->n", centred @ precision, centred))


def conformal_threshold(scores: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """The ceil((m + 1)(1 - alpha))-th smallest of m exchangeable scores.

    Returns:
        The threshold, and the bound on the chance that a new score exceeds it. With too few
        scores for alpha the threshold is the largest score, and the bound 1 / (m + 1).
    """
    m = len(scores)
    # Rounding keeps (19 + 1) * 0.95 from becoming 20.
    rank = min(math.ceil(round((m + 1) * (1 - alpha), 9)), m)
    return float(np.sort(scores)[rank - 1]), 1 - rank / (m + 1)


def _location(
    observations: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean and spread of each component, (O,), and which components are constant.

    A constant component gets a hundredth of its magnitude, or 0.01, for a spread: rounding
    does not take the robot out of support, a value never seen in training does.
    """
    mean = observations.mean(axis=0, dtype=np.float64)
    spread = observations.std(axis=0, dtype=np.float64)
    constant = spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    return mean, np.where(constant, 0.01 * np.maximum(np.abs(mean), 1.0), spread), constant


def _precision(
    standardised: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inverse covariance (O, O) of observations given as standardised (N, O) and spread (O,)."""
    size = len(spread)
    correlation = standardised.T @ standardised / len(standardised)
    shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(size)
    precision = np.linalg.inv(shrunk) / np.outer(spread, spread)
    return (precision + precision.T) / 2
