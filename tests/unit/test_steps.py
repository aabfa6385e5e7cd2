"""What times tell about clocks, when actions answer, and what the grid does with holes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Messages, ticks
from training.conversion.alignment import responses
from training.conversion.clocks import (
    bursts,
    clock_resets,
    common_era,
    header_clock,
    segment_numbers,
    set_backs,
    stamp_fault,
)
from training.conversion.steps import make_steps
from training.conversion.topics import Recording

WALL = 1_700_000_000


def seconds(*values: float | np.ndarray) -> np.ndarray:
    joined = np.concatenate([np.zeros(0), *[np.atleast_1d(value) for value in values]])
    return np.round(joined * SECOND_NS).astype(np.int64)


TEN_S = np.arange(0, 10, 0.1)


# -- clocks ----------------------------------------------------------------------------


def test_offset_and_drift_are_found_under_delays_and_a_start_up_burst() -> None:
    rng = np.random.default_rng(0)
    sent = np.arange(0, 149, 0.02)
    stamp = sent * (1 - 3.5 / 149) - 203
    arrival = sent + rng.exponential(0.005, len(sent))
    arrival[:100] = arrival[165]  # 3.3 s late
    clock = header_clock(seconds(arrival), seconds(stamp))
    assert clock.offset_s == pytest.approx(203 + 1.75, abs=0.1)
    assert clock.drifted_s == pytest.approx(3.5, abs=0.05)
    assert re.search(
        r"s behind the receive clock \(drifting by \+3\.[45]\d\d s in 14\d s\)", str(clock)
    )


def test_a_single_stamp_gives_an_offset_and_no_drift() -> None:
    clock = header_clock(seconds(5.0), seconds(7.0))
    assert (clock.offset_s, clock.drift) == (-2.0, 0.0)
    assert str(clock) == "2.000 s ahead of the receive clock"


def test_zero_and_rounded_stamps_are_faults_and_a_slow_topic_on_whole_seconds_is_none() -> None:
    arrival = seconds(WALL + TEN_S)
    assert stamp_fault(arrival, np.zeros_like(arrival)) == "100 of 100 stamps are zero"
    rounded = arrival // SECOND_NS * SECOND_NS
    assert stamp_fault(arrival, rounded) == "the stamps are rounded to whole seconds"
    assert stamp_fault(arrival, arrival - 1000) is None
    assert stamp_fault(arrival[::10], rounded[::10]) is None


def test_the_era_in_which_all_topics_have_messages_is_taken() -> None:
    mixed = seconds(TEN_S[:3], WALL + TEN_S)
    assert common_era({"a": mixed, "b": seconds(WALL + TEN_S)}, ["a", "b"]) is True
    assert common_era({"a": mixed, "b": seconds(TEN_S)}, ["a", "b"]) is False
    assert common_era({"a": seconds(TEN_S), "b": seconds(WALL + TEN_S)}, ["a", "b"]) is None


def test_a_clock_set_back_is_told_from_unsorted_chunks() -> None:
    assert set_backs(seconds(TEN_S, 5 + TEN_S)) == [100]
    assert set_backs(seconds(TEN_S, 5 + TEN_S, 2 + TEN_S)) == [100, 200]
    chunks = [TEN_S, 10 + TEN_S, 20 + TEN_S, 30 + TEN_S]
    for order in ([1, 0, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0], [0, 2, 3, 1]):
        assert set_backs(seconds(*[chunks[k] for k in order])) == []
    jitter = seconds(TEN_S + 0.3 * np.random.default_rng(0).random(100))
    assert set_backs(jitter) == []


def test_a_sparse_topic_is_sorted_into_the_stretches_that_dense_ones_show() -> None:
    dense = seconds(TEN_S, 5 + TEN_S)
    numbers = segment_numbers({"dense": dense, "sparse": seconds(1.0, 7.0, 14.0)})
    assert numbers["dense"].tolist() == [0] * 100 + [1] * 100
    assert numbers["sparse"].tolist() == [0, -1, 1]


def test_bursts_at_the_start_and_after_a_pause_are_found_and_jitter_is_not() -> None:
    late = np.concatenate([np.full(20, 2.0) + np.arange(20) * 1e-4, np.arange(2.1, 10, 0.1)])
    (burst,) = bursts(seconds(late))
    assert (burst.count, burst.pause_s) == (20, 0.0)
    paused = np.concatenate([TEN_S, 13 + np.arange(30) * 1e-4, 13.1 + TEN_S])
    (burst,) = bursts(seconds(paused))
    assert burst.count == 30
    assert burst.pause_s == pytest.approx(3.1)
    assert bursts(seconds(np.sort(TEN_S + 0.09 * np.random.default_rng(0).random(100)))) == []


def test_the_clock_of_a_restarted_world_goes_back() -> None:
    clock = seconds(TEN_S, TEN_S)
    arrival = seconds(WALL + np.arange(200) / 10)
    assert clock_resets(arrival, clock).tolist() == [arrival[100]]


# -- alignment -------------------------------------------------------------------------


def driven(shift: int, size: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A state that integrates smooth actions, recorded `shift` steps late."""
    noise = np.random.default_rng(1).normal(size=size + 20)
    action = np.convolve(noise, np.ones(3) / 3, "valid")[:size]
    state = np.concatenate([[0], np.cumsum(action)])
    state[1:] += 0.05 * np.random.default_rng(2).normal(size=size)
    recorded = np.roll(action, shift)
    return recorded[:, None], state[:, None], np.ones(size, bool)


@pytest.mark.parametrize("late", [-2, -1, 0, 1, 2])
def test_an_action_recorded_off_by_some_steps_is_found(late: int) -> None:
    (found,) = responses(*driven(late))
    assert found.lag == -late
    assert found.is_shifted == (late not in (0, -1))


def test_a_hole_in_the_steps_is_not_correlated_across() -> None:
    actions, states, usable = driven(0)
    states[200:] += 1e6
    usable[199] = False
    (found,) = responses(actions, states, usable)
    assert found.lag == 0
    assert found.correlation > 0.9


def test_too_few_steps_or_constant_actions_say_nothing() -> None:
    actions, states, usable = driven(1, 50)
    assert responses(actions, states, usable) == []
    actions, states, usable = driven(1)
    assert responses(np.ones_like(actions), states, usable) == []


# -- the grid --------------------------------------------------------------------------


def contract(**changes: Any) -> Contract:
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 10},
        "topics": {
            "state": {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.25},
            "cmd": {"topic": "/cmd", "type": "std_msgs/msg/Float64"},
        },
        "observations": [{"name": "x", "topic": "state", "path": "data"}],
        "actions": [{"name": "u", "topic": "cmd", "path": "data", "limits": [-9, 9], "safe": 0}],
        "reward": {"expression": "next_x"},
    }
    return Contract.model_validate({**base, **changes})


def messages(t_s: np.ndarray, values: np.ndarray | None = None) -> Messages:
    t_ns = seconds(t_s)
    rows = np.arange(len(t_ns)) if values is None else values
    return Messages(t_ns, t_ns, np.asarray(rows, np.float64)[:, None])


def recording(*segments: dict[str, Messages], resets_s: float | None = None) -> Recording:
    resets = seconds() if resets_s is None else seconds(resets_s)
    return Recording("log", segments, [resets for _ in segments])


def seconds_of(t_ns: np.ndarray) -> list[float]:
    return (t_ns / SECOND_NS).round(3).tolist()


def test_years_between_two_messages_cost_no_instants_and_no_step_crosses_them() -> None:
    times = np.concatenate([TEN_S, 1e9 + TEN_S])
    toy = contract()
    values = np.concatenate([np.arange(100), 5000 + np.arange(100)])
    both = {"state": messages(times, values), "cmd": messages(times - 0.05)}
    t_ns = ticks(toy, {"state": both["state"]})
    assert len(t_ns) < 1000
    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording(both))
    assert np.diff(steps.t_ns).max() > 9e17
    assert np.flatnonzero(steps.timeouts).tolist() == [100, len(steps.t_ns) - 1]
    assert (steps.next_observations - steps.observations <= 2).all()


def test_without_a_hole_the_grid_is_what_it_was() -> None:
    t_ns = ticks(contract(), {"state": messages(TEN_S)})
    assert seconds_of(t_ns) == TEN_S.round(3).tolist()


def test_no_step_crosses_from_one_segment_to_the_next() -> None:
    toy = contract()
    first = {"state": messages(TEN_S), "cmd": messages(TEN_S)}
    second = {"state": messages(5 + TEN_S, np.full(100, 7.0)), "cmd": messages(5 + TEN_S)}
    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording(first, second))
    assert np.flatnonzero(steps.timeouts).tolist() == [
        len(steps.t_ns) // 2 - 1,
        len(steps.t_ns) - 1,
    ]
    assert steps.facts["episodes"] == 2
    assert np.flatnonzero(np.diff(steps.t_ns) < 0).tolist() == [len(steps.t_ns) // 2 - 1]


def test_a_segment_without_a_needed_topic_is_left_out_and_none_left_is_an_error() -> None:
    toy = contract()
    whole = {"state": messages(TEN_S), "cmd": messages(TEN_S)}
    part = {"state": messages(TEN_S[:0]), "cmd": messages(TEN_S)}
    heard = recording(whole, part)
    assert make_steps(toy, FieldPlan(toy, ["x"]), heard).facts["episodes"] == 1
    assert "a stretch of the log has no message of /state: left out" in heard.findings
    with pytest.raises(LogError, match="log: no stretch of its time has messages of every topic"):
        make_steps(toy, FieldPlan(toy, ["x"]), recording(part))


def test_a_log_of_two_segments_has_no_single_time() -> None:
    with pytest.raises(LogError, match="log: the recorder's clock was set back 1 times"):
        recording({}, {})["state"]


def test_a_jump_beyond_its_limit_ends_the_episode_and_is_dropped() -> None:
    toy = contract(episode={"jump": {"x": 1.5}})
    values = np.concatenate([np.arange(50), np.arange(50)])
    both = {"state": messages(TEN_S, values), "cmd": messages(TEN_S - 0.01)}
    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording(both))
    assert steps.facts["dropped_jump"] == 1
    assert np.flatnonzero(steps.timeouts).tolist() == [48, 97]
    assert not steps.terminals.any()


def test_an_unused_jump_key_leaves_the_digest_alone() -> None:
    assert "episode" not in contract().canonical()
    assert contract(episode={"jump": {}}).digest() == contract().digest()


def test_a_reset_of_the_clock_drops_steps_that_still_see_the_state_before_it() -> None:
    toy = contract()
    slow = np.arange(0, 10, 0.2)
    both = {"state": messages(slow), "cmd": messages(TEN_S - 0.01)}
    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording(both, resets_s=5.05))
    # at 5.1 the state is of 5.0, from before the reset
    assert steps.facts["dropped_reset"] == 2
    assert [t for t in seconds_of(steps.t_ns) if 4.8 < t < 5.4] == [4.9, 5.2, 5.3]


def test_a_topic_may_be_state_and_command_at_once() -> None:
    toy = contract(
        topics={"state": contract().canonical()["topics"]["state"]},
        actions=[{"name": "u", "topic": "state", "path": "data", "limits": [-9, 9], "safe": 0}],
    )
    two = Messages(seconds(TEN_S), seconds(TEN_S), np.stack([np.arange(100), -np.arange(100)], 1))
    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording({"state": two}))
    assert steps.observations[:3, 0].tolist() == [0, 1, 2]
    assert steps.actions[:3, 0].tolist() == [0, -1, -2]


def test_a_trigger_that_ends_before_the_state_begins_gives_no_step() -> None:
    toy = contract(
        tick={"trigger": "beat"},
        topics=contract().canonical()["topics"]
        | {"beat": {"topic": "/beat", "type": "std_msgs/msg/Float64", "max_age_s": 1}},
    )
    parts = {"state": messages(20 + TEN_S), "cmd": messages(TEN_S), "beat": messages(TEN_S)}
    assert not len(make_steps(toy, FieldPlan(toy, ["x"]), recording(parts)).t_ns)
