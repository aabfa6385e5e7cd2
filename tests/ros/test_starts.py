"""The ends of a node: twenty, each at another moment, and one that hangs; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from tests.ros.robot import robot_on
from tests.small_bundle import write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

STARTS, LANES = 20, 3
LATEST_S = 2.0
"""The first half is stopped so long after the start at most: in imports, in configure. The other
half so long after configure at most: in the first ticks."""

CONFIGURED = ", mode active, backend onnx"


def started_and_stopped(bundle: Path, folder: Path, number: int) -> tuple[int, str]:
    """One life, ended by Ctrl-C after its share of `LATEST_S`; its exit code and output."""
    arguments = ["--mode", "active", "--", "-p", "backend:=onnx", "-p", f"record:={folder}"]
    arguments += ["-p", "listen_s:=0.0", "-r", f"__ns:=/life_{number}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "iql_ros.cli", "run", str(bundle), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ROS_HOME": str(folder)},
    )
    half = STARTS // 2
    early = ""
    if number >= half:
        assert process.stdout is not None
        while CONFIGURED not in early and (line := process.stdout.readline()):
            early += line
    time.sleep(LATEST_S * (number % half) / half)
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return -signal.SIGKILL, early + output
    return process.returncode, early + output


def test_twenty_starts_ended_at_any_moment_leave_nothing(tmp_path: Path) -> None:
    bundle = pass_gate(write_bundle(tmp_path / "bundle"))
    folder = tmp_path / "home"
    folder.mkdir()
    with robot_on() as robot, ThreadPoolExecutor(LANES) as lanes:
        lives = [
            lanes.submit(started_and_stopped, bundle, folder, number) for number in range(STARTS)
        ]
        assert robot.until(lambda: all(life.done() for life in lives), 120)
        ended = [life.result() for life in lives]
        assert all(code != -signal.SIGKILL for code, _ in ended), ended
        for code, output in ended[STARTS // 2 :]:
            hung = "Timeout (" in output and "destroy_node" in output  # rclpy; ended by the alarm
            assert code == 0 or hung, output
        # An interpreter that has not come to our code yet has its own words for it.
        unclean = [output for _, output in ended if "Traceback" in output]
        assert not [output for output in unclean if "iql_ros/nodes" in output]

        def nodes() -> list[str]:
            names = robot.node.get_node_names_and_namespaces()
            return [name for name, namespace in names if "/life_" in namespace]

        assert robot.until(lambda: not nodes(), 10), nodes()  # a ghost would stay for 20 s
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".tmp"], files


HANGS = """
import ctypes
from iql_ros.nodes import controller
controller.TEAR_DOWN_S = 1.0
controller.ControllerNode.destroy_node = lambda self: ctypes.PyDLL(None).sleep(60)
print("begun", flush=True)
raise SystemExit(controller.main(["--ros-args"]))
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_a_node_that_cannot_be_destroyed_ends_all_the_same(signals: int) -> None:
    # rclpy's destroy_node() can spin for ever when peers stop together, and as here nothing else
    # of the interpreter runs then: an alarm ends it,
    process = subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    if signals == 2:  # ... or whoever is impatient
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == (1 if signals == 1 else -signal.SIGTERM)
    process.stdout.close()
