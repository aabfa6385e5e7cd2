"""Shadow beside an incumbent, controllers in namespaces, and the black box of a node."""

from __future__ import annotations

import re
import resource
import signal
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry

from iql_ros.blackbox.recording_file import read_recording
from iql_ros.blackbox.replay import relive
from iql_ros.bundle import load_bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.contract import Contract
from iql_ros.nodes.types import installed_types
from iql_ros.policies import open_policy
from tests.ros.robot import Processes, Robot
from tests.small_bundle import CONTRACT, Mlp, write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

POLICY = "iql_controller: policy"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return pass_gate(write_bundle(tmp_path / "bundle"))


def test_shadow_measures_its_difference_from_the_incumbent(
    robot: Robot, processes: Processes, bundle: Path
) -> None:
    processes("iql_ros.cli", "run", str(bundle))  # shadow is the default
    incumbent = robot.node.create_publisher(Twist, "/cmd", 10)
    offset = 0.25

    def follow() -> None:
        if robot.shadows:
            command = Twist()
            command.linear.x = robot.shadows[-1].linear.x
            command.angular.z = robot.shadows[-1].angular.z - offset
            incumbent.publish(command)

    robot.node.create_timer(0.02, follow)
    policy = robot.diagnostics
    name = "iql_controller: policy"
    assert robot.until(lambda: "difference wz" in policy[name][2]), processes.log()
    numbers = {
        component: [float(x) for x in re.findall(r"-?\d[\d.e-]*", policy[name][2][key])]
        for component in ("vx", "wz")
        if (key := f"difference {component}")
    }
    rms, bias, largest, ticks = numbers["wz"]
    # The incumbent follows the same observation, so only the offset is left.
    assert rms == pytest.approx(offset, rel=1e-3)
    assert bias == pytest.approx(offset, rel=1e-3)
    assert largest == pytest.approx(offset, rel=1e-3)
    assert ticks > 0
    assert numbers["vx"][2] == pytest.approx(0, abs=1e-9)
    assert robot.node.count_publishers("/cmd") == 1


def test_two_controllers_in_namespaces_do_not_meet(
    robot: Robot, processes: Processes, tmp_path: Path
) -> None:
    topics = CONTRACT.canonical()["topics"]
    relative = {alias: {**topic, "topic": topic["topic"][1:]} for alias, topic in topics.items()}
    contract = Contract.model_validate({**CONTRACT.canonical(), "topics": relative})
    mlp = Mlp.drawn(0, contract=contract)
    bundle = write_bundle(
        tmp_path / "relative", mlp, contract=contract, policy=mlp.graph(graph_metadata(contract))
    )
    pass_gate(bundle)
    heard: dict[str, list[Twist]] = {"left": [], "right": []}
    for side, commands in heard.items():
        arguments = ["--mode", "active", "--", "-p", "backend:=onnx", "-r", f"__ns:=/{side}"]
        if side == "right":
            arguments += ["-r", "odom:=elsewhere"]
        processes("iql_ros.cli", "run", str(bundle.path), *arguments)
        robot.node.create_subscription(Twist, f"/{side}/cmd", commands.append, 10)
    left = robot.node.create_publisher(Odometry, "/left/odom", 10)
    timer = robot.node.create_timer(0.02, lambda: left.publish(robot.odometry))
    names = ["left/iql_controller: policy", "right/iql_controller: policy"]
    assert robot.until(lambda: heard["left"] and all(robot.diagnostics[n][1] for n in names))
    assert not heard["right"]
    robot.node.destroy_timer(timer)
    right = robot.node.create_publisher(Odometry, "/right/elsewhere", 10)
    robot.node.create_timer(0.02, lambda: right.publish(robot.odometry))
    assert robot.until(lambda: heard["right"])
    robot.controller = "/left/iql_controller"
    assert robot.trigger("emergency_stop")[0]
    assert robot.until(lambda: "emergency stop" in robot.diagnostics[names[0]][1])
    assert "emergency stop" not in robot.diagnostics[names[1]][1]


# rclpy's own words about our publisher use what it has deprecated itself.
@pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")
def test_a_publisher_whose_qos_does_not_fit_is_reported(
    robot: Robot, processes: Processes, tmp_path: Path
) -> None:
    topics = CONTRACT.canonical()["topics"]
    latched = {"reliability": "reliable", "durability": "transient_local"}
    topics["odom"] = {**topics["odom"], "qos": latched}
    contract = Contract.model_validate({**CONTRACT.canonical(), "topics": topics})
    mlp = Mlp.drawn(0, contract=contract)
    graph = mlp.graph(graph_metadata(contract))
    bundle = write_bundle(tmp_path / "latched", mlp, contract=contract, policy=graph)
    processes.run(pass_gate(bundle))
    told = "/odom: a publisher does not fit, policy DURABILITY"
    assert robot.until(lambda: told in robot.diagnostics["iql_controller: topics"][1])
    assert robot.diagnostics["iql_controller: topics"][0] == 1
    assert not robot.commands  # nothing is delivered


def test_two_controllers_on_one_topic_both_say_so(
    robot: Robot, processes: Processes, bundle: Path
) -> None:
    for side in ("left", "right"):
        arguments = ["--mode", "active", "--", "-p", "backend:=onnx", "-r", f"__ns:=/{side}"]
        processes("iql_ros.cli", "run", str(bundle), *arguments)
    names = ["left/iql_controller: commands", "right/iql_controller: commands"]
    told = "/cmd has 2 publishers: only one may command"
    assert robot.until(lambda: all(robot.diagnostics[name][1] == told for name in names))
    assert all(robot.diagnostics[name][0] == 2 for name in names)


def test_faults_and_shutdown_leave_recordings(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "box"
    process = processes.run(bundle, f"black_box:={folder}")
    assert robot.until(robot.moves), processes.log()
    robot.talks = False
    assert robot.until(lambda: list(folder.glob("*fault-stale.mcap")))
    robot.talks = True
    assert robot.until(robot.moves)
    assert robot.trigger("emergency_stop")[0]
    assert robot.until(lambda: list(folder.glob("*emergency-stop.mcap")))
    process.send_signal(signal.SIGTERM)
    assert robot.until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert len(list(folder.glob("iql_controller-*-shutdown.mcap"))) == 1
    assert not [path for path in folder.iterdir() if path.suffix != ".mcap"]
    loaded = load_bundle(bundle)
    policy = open_policy(loaded, "onnx").policy
    for path in folder.iterdir():
        relived = list(relive(read_recording(path), policy, installed_types(loaded.contract)))
        assert relived
        assert all(decision.is_same for decision in relived), path.name


def test_a_disk_that_is_full_is_only_logged(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    process = processes.run(bundle, f"black_box:={tmp_path / 'box'}", f"record:={runs}")
    assert robot.until(robot.moves), processes.log()
    robot.spin(0.5)  # some 25 messages of 700 bytes
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    robot.talks = False
    assert robot.until(lambda: "could not be recorded" in processes.log())
    assert not list((tmp_path / "box").iterdir())
    ended = "recording has ended: File too large"
    assert robot.until(lambda: robot.diagnostics[POLICY][2].get("recorder") == ended)
    assert f"{ended}; 0 whole parts are in {runs}" in processes.log()
    assert not [path for path in runs.rglob("*") if path.is_file()]
    robot.talks = True
    assert robot.until(robot.moves)
    process.send_signal(signal.SIGINT)
    assert robot.until(lambda: process.poll() is not None)
    assert process.returncode == 0
