from __future__ import annotations

import numpy as np
import pytest

from iql_ros.bundles.format import Support
from iql_ros.control.support import SupportCheck
from training.support import mahalanobis


def drawn(size: int) -> Support:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(size, size))
    precision = root @ root.T + np.eye(size)
    precision = (precision + precision.T) / 2
    return Support(
        mean=tuple(rng.normal(size=size).tolist()),
        precision=tuple(tuple(row) for row in precision.tolist()),
        threshold=4.0,
        alpha=0.05,
        false_alarm_bound=0.05,
        episodes=19,
        constant=(),
    )


def test_the_robot_measures_the_distance_that_the_threshold_was_calibrated_with() -> None:
    support = drawn(12)
    observations = np.random.default_rng(4).normal(size=(50, 12)).astype(np.float32)
    theirs = mahalanobis(observations, np.array(support.mean), np.array(support.precision))
    ours = [SupportCheck(support).distance(observation) for observation in observations]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)  # two ways to add up in float64


def test_the_largest_float32_is_as_far_as_can_be_and_raises_nothing() -> None:
    check = SupportCheck(drawn(3))
    with np.errstate(all="ignore"):
        distance = check.distance(np.array([3.4e38, -3.4e38, 3.4e38], np.float32))
    assert not distance <= check.threshold


def test_the_mean_lies_at_no_distance() -> None:
    support = drawn(4)
    mean = np.array(support.mean, np.float32)
    assert SupportCheck(support).distance(mean) == pytest.approx(0, abs=1e-6)
