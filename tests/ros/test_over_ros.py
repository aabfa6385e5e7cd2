"""ROS in the loop: the simulator and the node over DDS, beside the same episodes in lockstep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.context import Context
from sensor_msgs.msg import JointState

from iql_ros.errors import BundleError, IqlRosError
from sim.against_lockstep import in_words
from sim.over_ros import another_domain, play
from tests.ros.arm import write_joints
from tests.small_world import joints_contract, write_world

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

DOMAIN = 61
TICK = {"trigger": "joints", "every": 5}


@pytest.fixture
def world(tmp_path: Path) -> str:
    return str(write_world(tmp_path / "world", joints_contract(TICK)))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_joints(tmp_path / "bundle", TICK)


def test_a_world_of_files_runs_over_ros_and_the_difference_from_lockstep_is_told(
    world: str, bundle: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iql_ros.cli", "gate", str(bundle), "--world", world, "--ros"),
            *("--episodes", "3", "--speed", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "bundle.gate_ros"
    results = json.loads((out / "over_ros.json").read_text())
    assert results["finished"]
    assert [episode["episode"] for episode in results["episodes"]] == [0, 1, 2]
    against = results["against_lockstep"]
    assert [e["episode"] for e in against["lockstep"]] == [0, 1, 2]
    # The same starts and the same policy: what is left is a delay of milliseconds.
    assert against["successes"] == {"ros": 3, "lockstep": 3}
    assert max(abs(against["steps"]["least"]), abs(against["steps"]["most"])) <= 3
    assert results["latency_us"]["commands"] >= sum(e["steps"] for e in results["episodes"]) - 3
    words = in_words(against, results)
    assert words[0] == "outcome: 3 of 3 succeeded over ROS, 3 of 3 in lockstep"
    log = (out / "simulator.log").read_text()
    assert all(line in log and line in done.stdout for line in words)


def test_the_domain_is_never_that_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    chosen = another_domain()
    assert 1 <= chosen <= 101
    monkeypatch.setenv("ROS_DOMAIN_ID", str(chosen))
    assert another_domain() == chosen + 1


def test_another_robot_in_the_domain_is_noticed(world: str, bundle: Path, tmp_path: Path) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN + 1)
    node = rclpy.create_node("a_real_robot", context=context)
    node.create_publisher(JointState, "/joint_states", 10)
    try:
        with pytest.raises(IqlRosError, match="/joint_states has another publisher: a robot or a"):
            # Enough episodes for the middleware to find it on a busy machine; it ends at once then.
            play(bundle, world, episodes=200, out=tmp_path / "out", domain=DOMAIN + 1)
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_a_controller_that_cannot_start_is_told_from_its_log(world: str, tmp_path: Path) -> None:
    bundle = write_joints(tmp_path / "bundle", {"rate_hz": 20})
    (bundle / "policy.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"policy.onnx has 8 bytes"):
        play(bundle, world, episodes=1, out=tmp_path / "out", domain=DOMAIN)


def test_the_difference_names_episodes_that_ended_otherwise() -> None:
    against: dict[str, Any] = {
        "lockstep": [{}, {}],
        "successes": {"ros": 1, "lockstep": 2},
        "other_ending": [{"episode": 1, "ros": "time limit", "lockstep": "success"}],
        "steps": {"mean": 7.0, "least": 0.0, "most": 14.0},
        "return": {"mean": -3.25, "least": -6.5, "most": 0.0},
        "tick_us": {"p50": 50.0, "p99": 90.0, "p100": 100.0},
    }
    latency = {"commands": 40, "p50": 900.0, "p90": 1e3, "p99": 2000.0, "p100": 2500.0}
    results = {"latency_us": latency, "out_of_step": 2, "sensor_period_ms": 10.0}
    assert in_words(against, results) == [
        "outcome: 1 of 2 succeeded over ROS, 2 of 2 in lockstep",
        "episode 1: time limit over ROS, success in lockstep",
        "steps, ROS less lockstep: mean +7.00, from +0.00 to +14.00",
        "return, ROS less lockstep: mean -3.25, from -6.50 to +0.00",
        "latency: from measurement to command p50 900 us, p99 2000 us, largest 2500 us over ROS; "
        "in lockstep no time passes, while a tick computes for p50 50 us, p99 90 us",
        "2 of 40 commands came after another sensor period (of 10 ms) than in lockstep: late, or "
        "since a message was lost",
    ]
