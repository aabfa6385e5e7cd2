from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iql_ros.contract import Contract
from iql_ros.control.status import Status
from iql_ros.envelope import Envelope

CONTRACT = Contract.model_validate(
    {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 10},
        "topics": {
            "in": {"topic": "/in", "type": "std_msgs/msg/Float64", "max_age_s": 1},
            "out": {"topic": "/out", "type": "geometry_msgs/msg/Vector3"},
        },
        "observations": [{"name": "x", "topic": "in", "path": "data"}],
        "actions": [
            {
                "name": "u",
                "topic": "out",
                "path": "{x,y}",
                "limits": [[-1, 1], [0, 2]],
                "slew": [5, 100],
                "safe": [0, 0.5],
            }
        ],
        "reward": {"expression": "x"},
    }
)


def test_an_action_within_all_bounds_passes_unchanged() -> None:
    result = Envelope(CONTRACT)(np.array([0.3, 1.0]), np.array([0.1, 1.0]), 0.1)
    assert (result.status, result.detail) == (Status.OK, "")
    np.testing.assert_array_equal(result.action, [0.3, 1.0])


def test_limits_clip_and_say_so() -> None:
    result = Envelope(CONTRACT)(np.array([0.0, 7.0]), np.array([0.0, 1.9]), 0.1)
    assert result.status is Status.LIMITED
    assert result.detail == "u_y = 7 became 2"
    np.testing.assert_array_equal(result.action, [0.0, 2.0])


def test_slew_bounds_the_change_from_the_last_command() -> None:
    result = Envelope(CONTRACT)(np.array([1.0, 0.5]), np.array([-1.0, 0.5]), 0.1)
    np.testing.assert_allclose(result.action, [-0.5, 0.5], atol=1e-15)


def test_the_first_command_starts_from_the_safe_action() -> None:
    result = Envelope(CONTRACT)(np.array([1.0, 2.0]), None, 0.0)
    np.testing.assert_array_equal(result.action, [0.0, 0.5])


def test_an_action_that_is_not_finite_becomes_the_safe_one() -> None:
    for bad in ([np.nan, 1.0], [0.0, np.inf], [0.0]):
        result = Envelope(CONTRACT)(np.array(bad), np.array([0.0, 1.0]), 0.1)
        assert result.status is Status.POLICY
        np.testing.assert_array_equal(result.action, CONTRACT.action_safe)


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    proposals=st.lists(st.tuples(anything, anything), max_size=20),
    dt_s=st.floats(0, 10),
)
def test_whatever_is_proposed_the_result_is_bounded_or_safe(
    proposals: list[tuple[float, float]], dt_s: float
) -> None:
    envelope, previous = Envelope(CONTRACT), None
    for proposal in proposals:
        result = envelope(np.array(proposal), previous, dt_s)
        action = result.action
        if result.status is Status.POLICY:
            np.testing.assert_array_equal(action, CONTRACT.action_safe)
        else:
            assert (action >= CONTRACT.action_low).all()
            assert (action <= CONTRACT.action_high).all()
            start = CONTRACT.action_safe if previous is None else previous
            reach = CONTRACT.action_slew * dt_s
            # 1e-12: adding and taking away the same step rounds.
            assert (np.abs(action - start) <= reach * (1 + 1e-12) + 1e-12).all()
        previous = action
