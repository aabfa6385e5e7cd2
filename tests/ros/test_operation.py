"""What a person can tell a running controller, and what it tells: one node for all of them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import itertools

from geometry_msgs.msg import Twist
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import Bool, String

from iql_ros.bundles.format import graph_metadata
from tests.ros.robot import LATCHED, Processes, Robot, processes_in, robot_on
from tests.small_bundle import CONTRACT, Mlp, write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

POLICY = "iql_controller: policy"


@pytest.fixture(scope="module", params=["single", "events"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    folder = tmp_path_factory.mktemp(request.param)
    bundle = pass_gate(write_bundle(folder / "bundle"))
    with processes_in(folder) as processes, robot_on() as robot:
        processes.run(bundle, f"executor:={request.param}")
        assert robot.until(robot.moves), processes.log()
        yield robot, processes


@pytest.fixture
def robot(node: tuple[Robot, Processes]) -> Robot:
    """A robot that moves at full speed."""
    robot, processes = node
    robot.trigger("release")
    assert robot.set("speed", 1.0) == ""
    assert robot.until(robot.moves), processes.log()
    return robot


@pytest.fixture
def folder(node: tuple[Robot, Processes]) -> Path:
    return node[1].folder


def turn(robot: Robot) -> float:
    return robot.commands[-1][1].angular.z


def test_waiting_for_messages_burns_no_core(robot: Robot, node: tuple[Robot, Processes]) -> None:
    # The spin() of this rclpy's events executor does, as it overflows a wait without deadline.
    (process,) = node[1].running
    before_s = cpu_s(process.pid)
    robot.spin(2.0)
    assert cpu_s(process.pid) - before_s < 1.0  # 50 messages and 20 ticks a second: some 0.1


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_speed_scales_the_command_while_it_runs(robot: Robot) -> None:
    full = turn(robot)
    assert robot.set("speed", 0.5) == ""
    assert robot.until(lambda: math.isclose(turn(robot), full / 2, rel_tol=1e-3))
    assert robot.set("speed", 0.0) == ""
    assert robot.until(robot.rests)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("speed", 1.5, "0.0 to 1.0"),
        ("speed", math.nan, "parameter 'speed' is nan: it must be 0.0 to 1.0"),
        ("speed", -0.1, "0.0 to 1.0"),
        ("mode", "shadow", "is read at configure: clean up first"),
        ("allow_ungated", True, "is read at configure: clean up first"),
        ("use_sim_time", True, "is read at configure: clean up first"),
        ("mode", "reckless", "it must be one of shadow, active"),
        ("realtime_priority", 150, "99"),
    ],
)
def test_a_wrong_parameter_is_refused_with_the_reason(
    robot: Robot, name: str, value: object, reason: str
) -> None:
    given = robot.set(name, value)
    assert given
    assert reason in given or "range" in given.lower()


def test_the_emergency_stop_service_stops_until_it_is_released(robot: Robot) -> None:
    stopped = time.monotonic()
    assert robot.trigger("emergency_stop") == (True, "stopped")
    assert robot.until(robot.rests)
    assert robot.safe_after(stopped) < 2.0
    assert robot.until(lambda: robot.diagnostics[POLICY][0] == 2)
    assert "emergency stop: service /iql_controller/emergency_stop" in robot.diagnostics[POLICY][1]
    assert robot.rests()
    assert robot.trigger("release") == (True, "released")
    assert robot.until(robot.moves)


def test_the_emergency_stop_topic_stops_and_cannot_release(robot: Robot) -> None:
    robot.press(stop=True)
    assert robot.until(robot.rests)
    success, text = robot.trigger("release")
    assert not success
    assert "/emergency_stop still says stop" in text
    robot.press(stop=False)
    count = len(robot.commands)
    assert robot.until(lambda: len(robot.commands) > count + 5)
    assert robot.rests()
    assert robot.until(lambda: robot.trigger("release")[0])
    assert robot.until(robot.moves)


def test_a_button_that_says_false_does_not_lift_the_stop_of_another(robot: Robot) -> None:
    other = robot.node.create_publisher(Bool, "emergency_stop", LATCHED)
    told: list[dict[str, Any]] = []
    robot.node.create_subscription(
        Bool, "emergency_stop", lambda message, info: told.append(info), LATCHED
    )
    robot.press(stop=False)
    assert robot.until(lambda: bool(told))
    if "publisher_gid" not in told[0]:
        robot.node.destroy_publisher(other)
        pytest.skip("this rclpy, as Jazzy's, does not tell who published")
    robot.press(stop=True)
    assert robot.until(robot.rests)
    other.publish(Bool(data=False))
    robot.spin(1.0)
    success, text = robot.trigger("release")
    assert not success
    assert "/emergency_stop still says stop" in text
    robot.press(stop=False)
    assert robot.until(lambda: robot.trigger("release")[0])
    assert robot.until(robot.moves)
    other.publish(Bool(data=True))
    assert robot.until(robot.rests)
    assert not robot.trigger("release")[0]
    robot.node.destroy_publisher(other)  # one that is gone says nothing any more
    assert robot.until(lambda: robot.trigger("release")[0])
    assert robot.until(robot.moves)


def test_reload_and_rollback_swap_bundles_while_it_moves(robot: Robot, folder: Path) -> None:
    before = turn(robot)
    other = folder / f"other-{time.monotonic_ns()}"
    bundle = write_bundle(other, Mlp.drawn(5), golden=Mlp.drawn(5).golden())
    digest = bundle.digest
    pass_gate(bundle)
    assert robot.set("bundle", str(other)) == ""
    success, text = robot.trigger("reload")
    assert success, text
    assert digest[:12] in text
    assert robot.until(lambda: not math.isclose(turn(robot), before, rel_tol=1e-3))
    assert robot.until(lambda: robot.diagnostics[POLICY][2].get("bundle") == digest)
    success, text = robot.trigger("rollback")
    assert success, text
    assert robot.until(lambda: math.isclose(turn(robot), before, rel_tol=1e-6))


def test_a_bad_bundle_in_motion_leaves_the_old_one_running(robot: Robot, folder: Path) -> None:
    bad = folder / f"bad-{time.monotonic_ns()}"
    write_bundle(bad)
    (bad / "policy.onnx").write_bytes(b"no graph at all")
    robot.set("bundle", str(bad))
    asked = time.monotonic()
    success, text = robot.trigger("reload")
    assert not success
    assert "runs on" in text
    assert "policy.onnx" in text
    count = len(robot.commands)
    assert robot.until(lambda: len(robot.commands) > count + 5)
    assert robot.moves()
    heard = [t for t, _ in robot.commands if t > asked - 0.2]
    assert max(b - a for a, b in itertools.pairwise(heard)) < 1.0


def test_a_bundle_without_a_gate_is_not_loaded_in_motion(robot: Robot, folder: Path) -> None:
    other = folder / f"ungated-{time.monotonic_ns()}"
    write_bundle(other, Mlp.drawn(5), golden=Mlp.drawn(5).golden())
    before = turn(robot)
    robot.set("bundle", str(other))
    success, text = robot.trigger("reload")
    assert not success
    assert "runs on" in text
    assert "has not passed in simulation (no gate.json)" in text
    assert robot.until(lambda: math.isclose(turn(robot), before, rel_tol=1e-6))


def test_a_bundle_of_another_contract_is_not_loaded_in_motion(robot: Robot, folder: Path) -> None:
    other = folder / f"stranger-{time.monotonic_ns()}"
    faster = CONTRACT.model_validate({**CONTRACT.canonical(), "tick": {"rate_hz": 25}})
    mlp = Mlp.drawn(0, contract=faster)
    write_bundle(other, mlp, contract=faster, policy=mlp.graph(graph_metadata(faster)))
    robot.set("bundle", str(other))
    success, text = robot.trigger("reload")
    assert not success
    assert "tick.rate_hz" in text
    assert robot.until(robot.moves)


def test_diagnostics_and_heartbeat_tell_what_it_does(robot: Robot) -> None:
    robot.heartbeats.clear()
    wanted = [
        f"iql_controller: {part}" for part in ("policy", "topics", "loop", "commands", "gate")
    ]
    assert robot.until(lambda: all(robot.diagnostics[name][1] for name in wanted))
    assert robot.until(lambda: "latency_us p99" in robot.diagnostics[wanted[2]][2])
    values = robot.diagnostics[POLICY][2]
    assert values["backend"] == "onnx"
    assert int(values["ticks ok"]) + int(values["ticks limited"]) > 0
    assert robot.until(lambda: float(robot.diagnostics[wanted[1]][2]["age_s odom"]) < 0.2)
    assert robot.until(lambda: float(robot.diagnostics[wanted[1]][2].get("rate_hz odom", 0)) > 10)
    assert robot.diagnostics[wanted[3]][2]["publishers /cmd"] == "1"
    assert "passed 100 episodes of suite toy" in robot.diagnostics[wanted[4]][1]
    assert robot.until(lambda: len(robot.heartbeats) >= 11)
    took = robot.heartbeats[10][0] - robot.heartbeats[0][0]
    assert took < 5.0  # ten beats a second; the rest is this busy machine's
    assert robot.heartbeats[-1][1].message in ("ok", "limited", "slewed", "slowed")


def test_the_contract_is_there_for_whoever_comes_late(robot: Robot) -> None:
    heard: list[str] = []
    subscription = robot.node.create_subscription(
        String, "/iql_controller/contract", lambda m: heard.append(m.data), LATCHED
    )
    assert robot.until(lambda: heard)
    robot.node.destroy_subscription(subscription)
    assert json.loads(heard[0]) == CONTRACT.canonical()


def test_a_second_publisher_of_commands_is_reported(robot: Robot) -> None:
    intruder = robot.node.create_publisher(Twist, "/cmd", 10)
    name = "iql_controller: commands"
    assert robot.until(lambda: "2 publishers" in robot.diagnostics[name][1])
    assert robot.diagnostics[name][0] == 2
    robot.node.destroy_publisher(intruder)
    assert robot.until(lambda: robot.diagnostics[name][1] == "alone")


def test_an_invalid_transition_does_not_end_the_node(robot: Robot) -> None:
    request = ChangeState.Request()
    request.transition.id = 3  # activate, while it is active
    client = robot.node.create_client(ChangeState, "/iql_controller/change_state")
    client.call_async(request)  # rclpy of Jazzy raises instead of answering
    assert robot.state() == "active"
    robot.commands.clear()
    assert robot.until(robot.moves)
