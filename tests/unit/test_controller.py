from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from iql_ros.contract import Contract
from iql_ros.control.status import Status
from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.wire import Reader, make_types
from tests.bags import MS, float64, payload

TYPES = make_types({})


def contract(**changes: Any) -> Contract:
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"trigger": "state"},
        "topics": {
            "state": {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.2},
            "goal": {"topic": "/goal", "type": "std_msgs/msg/Float64", "max_age_s": 1.0},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        "observations": [
            {"name": "x", "topic": "state", "path": "data"},
            {"name": "goal", "topic": "goal", "path": "data"},
        ],
        "actions": [
            {"name": "u", "topic": "cmd", "path": "linear.x", "limits": [-2, 2], "safe": 0.5}
        ],
        "reward": {"expression": "-x"},
    }
    return Contract.model_validate({**base, **changes})


def difference(observation: np.ndarray) -> np.ndarray:
    return (observation[1:] - observation[:1]).astype(np.float32)


def number(value: float) -> bytes:
    return payload("std_msgs/msg/Float64", float64(value))


def published(command: Any, path: str = "linear.x") -> float:
    reader = Reader(TYPES, "geometry_msgs/msg/Twist", [path])
    values = reader.read(command.payloads["cmd"])
    assert values is not None
    return float(values[0])


@pytest.fixture
def controller() -> Controller:
    return Controller(contract(), difference, TYPES)


def feed(controller: Controller, t_ms: int, x: float, goal: float) -> None:
    controller.put("goal", t_ms * MS, number(goal))
    controller.put("state", t_ms * MS, number(x))


def test_payloads_in_give_payloads_out(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.5)
    command = controller.tick(0)
    assert command.status is Status.OK
    assert published(command) == 1.5
    assert published(command, "angular.z") == 0.0


def test_the_trigger_says_when_a_tick_is_due() -> None:
    controller = Controller(contract(tick={"trigger": "state", "every": 3}), difference, TYPES)
    due = [controller.put("state", i * MS, number(0)) for i in range(7)]
    assert due == [True, False, False, True, False, False, True]
    assert controller.put("goal", 9 * MS, number(0)) is False


def test_nothing_is_published_before_every_topic_has_spoken(controller: Controller) -> None:
    controller.put("state", 0, number(1.0))
    command = controller.tick(0)
    assert command.status is Status.WAITING
    assert command.detail == "field 'goal' has no value yet: is /goal publishing?"
    assert not command.payloads
    assert not controller.stop(1).payloads


def test_a_stale_topic_gives_the_safe_action_and_names_the_field(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    controller.put("goal", 250 * MS, number(2.0))
    command = controller.tick(250 * MS)
    assert command.status is Status.STALE
    assert command.detail == "field 'x' is 0.25 s old, limit 0.20 s: is /state publishing?"
    assert published(command) == 0.5


def test_a_nan_gives_the_safe_action_until_it_is_gone(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    feed(controller, 100, np.nan, 2.0)
    command = controller.tick(100 * MS)
    assert (command.status, command.detail) == (Status.NOT_FINITE, "field 'x' is nan: not finite")
    assert published(command) == 0.5
    feed(controller, 200, 1.0, 2.0)
    assert published(controller.tick(200 * MS)) == 1.0


def test_the_action_is_clipped_to_its_limits(controller: Controller) -> None:
    feed(controller, 0, 0.0, 9.0)
    command = controller.tick(0)
    assert (command.status, command.detail) == (Status.LIMITED, "u = 9 became 2")
    assert published(command) == 2.0


@pytest.mark.parametrize(
    "policy",
    [
        lambda observation: np.array([np.nan], np.float32),
        lambda observation: np.zeros(3, np.float32),
        lambda observation: 1 / 0,
    ],
)
def test_a_faulty_policy_gives_the_safe_action(policy: Any) -> None:
    asked = iter([difference, policy])
    controller = Controller(contract(), lambda observation: next(asked)(observation), TYPES)
    feed(controller, 0, 0.0, 1.0)
    controller.tick(0)
    feed(controller, 100, 0.0, 1.0)
    command = controller.tick(100 * MS)
    assert command.status is Status.POLICY
    assert published(command) == 0.5


def test_a_malformed_payload_is_not_used_and_named_once_it_matters(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    controller.put("state", 150 * MS, b"\0\1\0\0\7")
    assert controller.tick(150 * MS).status is Status.OK  # the good one is still fresh
    command = controller.tick(300 * MS)
    assert command.status is Status.STALE
    assert "std_msgs/msg/Float64" in command.detail


def test_a_silent_trigger_is_overdue_and_gives_the_safe_action(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    assert controller.overdue(200 * MS) is None
    command = controller.overdue(201 * MS)
    assert command is not None
    assert published(command) == 0.5
    assert "is /state publishing?" in command.detail


def test_a_restart_publishes_nothing_until_it_acts_but_keeps_what_was_said(
    controller: Controller,
) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    controller.restart()
    assert not controller.stop(10 * MS).payloads
    controller.put("state", 100 * MS, number(1.5))  # the goal is not repeated
    assert published(controller.tick(100 * MS)) == 0.5


def test_the_last_command_is_the_safe_one(controller: Controller) -> None:
    feed(controller, 0, 1.0, 2.0)
    controller.tick(0)
    assert published(controller.stop(10 * MS)) == 0.5


def test_a_command_can_be_sent_to_another_process(controller: Controller) -> None:
    feed(controller, 0, x=0.0, goal=1.0)
    for command in (controller.tick(0), controller.stop(MS), controller.overdue(2_000 * MS)):
        sent = pickle.loads(pickle.dumps(command))
        assert (sent.status, dict(sent.ages_s)) == (command.status, dict(command.ages_s))
        assert sent.payloads == command.payloads


def test_a_clock_that_jumps_back_gives_the_safe_action_until_messages_come(
    controller: Controller,
) -> None:
    feed(controller, 1000, 1.0, 2.0)
    controller.tick(1000 * MS)
    command = controller.tick(0)
    assert command.status is Status.WAITING
    assert published(command) == 0.5
    feed(controller, 10, 1.0, 2.0)
    assert controller.tick(10 * MS).status is Status.OK


@pytest.mark.parametrize(
    ("msgtype", "limits", "safe", "text"),
    [
        ("Int32", [-2, 2.6], 0, "the limit 2.6 becomes 3 in its message"),
        ("UInt8", [-5, 5], 0, "the limit -5 becomes 0 in its message"),
        ("Int16", [-1, 40_000], 0, "the limit 40000 becomes 32767 in its message"),
        ("Int8", [-1, 1], 0.4, "safe 0.4 becomes 0 in its message"),
        ("Float32", [-1, 1e300], 0, "the limit 1e\\+300 becomes 3.40282e\\+38 in its message"),
    ],
)
def test_limits_that_the_message_turns_into_others_are_refused(
    msgtype: str, limits: list[float], safe: float, text: str
) -> None:
    topics = contract().canonical()["topics"]
    topics["cmd"] = {"topic": "/cmd", "type": f"std_msgs/msg/{msgtype}"}
    action = {"name": "u", "topic": "cmd", "path": "data", "limits": limits, "safe": safe}
    with pytest.raises(ContractError, match=f"action 'u': {text}: declare what"):
        Controller(contract(topics=topics, actions=[action]), difference, TYPES)


def test_slew_holds_between_ticks() -> None:
    action = {"name": "u", "topic": "cmd", "path": "linear.x", "limits": [-2, 2], "safe": 0}
    controller = Controller(contract(actions=[{**action, "slew": 5}]), difference, TYPES)
    speeds = []
    for i in range(4):
        feed(controller, 100 * i, 0.0, 1.2)
        speeds.append(round(published(controller.tick(100 * i * MS)), 6))
    assert speeds == [0.0, 0.5, 1.0, 1.2]


def test_a_stamped_command_bears_the_time_of_its_tick() -> None:
    topics = contract().canonical()["topics"]
    topics["cmd"] = {
        "topic": "/cmd",
        "type": "geometry_msgs/msg/TwistStamped",
        "constants": {"header.frame_id": "base"},
    }
    action = {"name": "u", "topic": "cmd", "path": "twist.linear.x", "limits": [-2, 2], "safe": 0}
    controller = Controller(contract(topics=topics, actions=[action]), difference, TYPES)
    t_ns = 1_700_000_000_123_456_789
    controller.put("goal", t_ns, number(2.0))
    controller.put("state", t_ns, number(1.0))
    message = TYPES.deserialize_cdr(
        controller.tick(t_ns).payloads["cmd"], "geometry_msgs/msg/TwistStamped"
    )
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == divmod(t_ns, 10**9)
    assert message.header.frame_id == "base"
    assert message.twist.linear.x == 1.0


def test_a_topic_with_two_publishers_uses_the_messages_that_have_the_joint() -> None:
    def joints(names: list[str], position: list[float]) -> bytes:
        time = ("builtin_interfaces/msg/Time", {"sec": 0, "nanosec": 0})
        return payload(
            "sensor_msgs/msg/JointState",
            {
                "header": ("std_msgs/msg/Header", {"stamp": time, "frame_id": ""}),
                "name": names,
                "position": np.array(position),
                "velocity": np.array([]),
                "effort": np.array([]),
            },
        )

    topics = contract().canonical()["topics"]
    topics["state"]["type"] = "sensor_msgs/msg/JointState"
    observations = contract().canonical()["observations"]
    observations[0]["path"] = "position[elbow]"
    controller = Controller(contract(topics=topics, observations=observations), difference, TYPES)
    controller.put("goal", 0, number(2.0))
    controller.put("state", 0, joints(["shoulder", "elbow"], [7.0, 1.0]))
    controller.put("state", 1 * MS, joints(["gripper"], [9.0]))
    assert published(controller.tick(2 * MS)) == 1.0
