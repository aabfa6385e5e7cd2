"""A step of the dataset and a tick on the robot begin with the same message of the trigger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iql_ros.contract import Contract
from iql_ros.control.status import Status
from iql_ros.controller import Controller
from iql_ros.wire import make_types
from tests.bags import MS, START_NS, Entry, float64, payload, write_bag
from training.conversion.one_log import Converted, convert_log

TYPES = make_types({})
JOINTS = "sensor_msgs/msg/JointState"


def joints(t_ms: float, name: str, position: float, stamp_ms: float | None = None) -> Entry:
    sec, nanosec = divmod(START_NS + round((t_ms if stamp_ms is None else stamp_ms) * MS), 10**9)
    stamp = ("builtin_interfaces/msg/Time", {"sec": sec, "nanosec": nanosec})
    fields = {
        "header": ("std_msgs/msg/Header", {"stamp": stamp, "frame_id": ""}),
        "name": [name],
        "position": np.array([position], np.float64),
        "velocity": np.zeros(0),
        "effort": np.zeros(0),
    }
    return ("/joints", JOINTS, t_ms, fields)


def command(t_ms: float) -> Entry:
    return ("/cmd", "std_msgs/msg/Float64", t_ms, float64(0.5))


def contract(every: int = 1, signals: Sequence[dict[str, str]] = (), **topic: Any) -> Contract:
    joints = {"topic": "/joints", "type": JOINTS, "max_age_s": 0.25, **topic}
    return Contract.model_validate(
        {
            "format": 1,
            "robot": "toy",
            "tick": {"trigger": "joints", "every": every},
            "topics": {
                "joints": joints,
                "cmd": {"topic": "/cmd", "type": "std_msgs/msg/Float64"},
                "score": {"topic": "/score", "type": "std_msgs/msg/Float64", "max_age_s": 0.1},
            },
            "signals": signals,
            "observations": [
                {"name": "q", "topic": "joints", "path": "position[arm]"},
                {"name": "before", "history_of": "q"},
            ],
            "actions": [
                {"name": "u", "topic": "cmd", "path": "data", "limits": [-1, 1], "safe": 0}
            ],
            "reward": {"expression": "next_q"},
        }
    )


def ticked(rules: Contract, entries: Sequence[Entry]) -> list[tuple[int, list[float]]]:
    """When the robot acts, and on what it then sees, if it hears what the log holds."""
    controller = Controller(rules, lambda seen: np.zeros(1, np.float32), TYPES)
    acted = []
    for topic, msgtype, t_ms, fields in entries:
        t_ns = START_NS + round(t_ms * MS)
        if topic == "/joints" and controller.put("joints", t_ns, payload(msgtype, fields)):
            seen = controller.tick(t_ns)
            if seen.status is Status.OK and seen.observation is not None:
                acted.append((t_ns, seen.observation.tolist()))
    return acted


def stepped(tmp_path: Path, rules: Contract, entries: Sequence[Entry]) -> Converted:
    result = convert_log(write_bag(tmp_path / "bag", entries), rules)
    steps = result.steps
    offline = list(zip(steps.t_ns.tolist(), steps.observations.tolist(), strict=True))
    assert len(offline) > 5
    assert ticked(rules, entries)[: len(offline)] == offline
    return result


def test_a_trigger_whose_stamps_lie_ahead_ticks_when_its_messages_come(tmp_path: Path) -> None:
    entries = [
        one
        for k in range(40)
        for one in (joints(20 * k, "arm", k, 20 * k + 5), command(20 * k + 10))
    ]
    result = stepped(tmp_path, contract(clock="header"), entries)
    assert result.steps.observations[0, 0] == 0  # at 20 ms, that of the message before
    assert any("40 of 40 stamps lie ahead of the receive time" in f for f in result.findings)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_another_publisher_says_on_the_trigger_topic_is_no_tick(
    tmp_path: Path, every: int
) -> None:
    entries = [
        one
        for k in range(40)
        for one in (
            joints(20 * k, "arm", k),
            joints(20 * k + 7, "gripper", 0.0),
            command(20 * k + 10),
        )
    ]
    result = stepped(tmp_path, contract(every), entries)
    assert np.diff(result.steps.t_ns).tolist() == [20 * every * MS] * (len(result.steps.t_ns) - 1)


def test_a_message_that_is_skipped_for_a_nan_still_is_a_tick(tmp_path: Path) -> None:
    entries = [
        one
        for k in range(40)
        for one in (joints(20 * k, "arm", np.nan if k % 7 == 3 else k), command(20 * k + 10))
    ]
    stepped(tmp_path, contract(2, on_nonfinite="hold"), entries)


def test_a_signal_that_is_old_does_not_restart_what_the_policy_remembers(tmp_path: Path) -> None:
    entries = [
        one
        for k in range(60)
        for one in (
            *([("/score", "std_msgs/msg/Float64", 20 * k, float64(1.0))] if k % 10 == 0 else []),
            joints(20 * k, "arm", k),
            command(20 * k + 10),
        )
    ]
    rules = contract(signals=[{"name": "score", "topic": "score", "path": "data"}])
    steps = convert_log(write_bag(tmp_path / "bag", entries), rules).steps
    assert steps.facts["stale_score"] > 10
    seen = dict(ticked(rules, entries))
    for t_ns, observation in zip(steps.t_ns.tolist(), steps.observations.tolist(), strict=True):
        assert seen[t_ns] == observation


def test_a_trigger_that_never_has_the_joint_says_what_is_missing() -> None:
    controller = Controller(contract(), lambda seen: np.zeros(1, np.float32), TYPES)
    _, msgtype, _, fields = joints(0, "gripper", 0.0)
    data = payload(msgtype, fields)
    assert controller.put("joints", 0, data)
    command = controller.tick(0)
    assert command.status is Status.WAITING
    assert "joint 'arm' is not in name = ['gripper']" in command.detail
