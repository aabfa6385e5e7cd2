"""Whether an observation lies where the policy has data."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.format import Support


class SupportCheck:
    """Mahalanobis distance against the bundle's conformal threshold.

    Attributes:
        threshold: distances above it are outside.
    """

    def __init__(self, support: Support) -> None:
        """Factors the precision once: d = |L^T (x - mean)| with precision = L L^T."""
        self._mean = np.array(support.mean, np.float64)
        self._factor = np.ascontiguousarray(np.linalg.cholesky(np.array(support.precision)).T)
        self.threshold = support.threshold

    def distance(self, observation: NDArray[np.float32]) -> float:
        """Distance of an observation, shape (O,), from the training mean; no unit.

        Infinite or NaN for values too large to be squared: compare with `not (d <= threshold)`.
        """
        scaled = self._factor @ (observation - self._mean)
        return math.sqrt(float(scaled @ scaled))
