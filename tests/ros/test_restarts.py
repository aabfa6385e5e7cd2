"""Restarts, jumps of the clock, starvation: faults that need a controller of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from tests.ros.arm import BOUND_S, RATE_HZ, Arm, write_joints
from tests.ros.robot import Processes

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

POLICY = "iql_controller: policy"
LOOP = "iql_controller: loop"


@pytest.fixture
def arm(processes: Processes) -> Iterator[Arm]:  # closed before they are killed, see conftest
    arm = Arm()
    arm.speak()
    yield arm
    arm.close()


def test_a_killed_controller_comes_back_under_a_latched_stop_and_acts(
    arm: Arm, processes: Processes, tmp_path: Path
) -> None:
    bundle = write_joints(tmp_path / "bundle", {"trigger": "joints"})
    process = processes.run(bundle)
    assert arm.until(arm.acts), processes.log()
    process.kill()
    process.wait()
    # What the killed one said may wait in our queue still.
    assert arm.until(lambda: time.monotonic() - arm.velocities[-1][0] > 0.3)
    arm.velocities.clear()
    arm.press(stop=True)  # latched: it holds for who comes later
    processes.run(bundle)
    assert arm.until(lambda: "emergency stop" in arm.diagnostics[POLICY][1])
    arm.spin(1.5)
    # It listens before it acts.
    assert not any(any(v) for _, v in arm.velocities), processes.log()
    arm.press(stop=False)
    assert arm.until(lambda: arm.trigger("release", again_s=2.0)[0])
    assert arm.until(arm.acts)
    # It ticks by its trigger: that this falls silent is for a timer to notice.
    arm.silence()
    assert arm.safe_within(arm.sent_s) < BOUND_S + 0.05


def test_a_clock_that_jumps_both_ways(arm: Arm, processes: Processes, tmp_path: Path) -> None:
    bundle = write_joints(tmp_path / "bundle", {"rate_hz": RATE_HZ})
    clock = arm.node.create_publisher(Clock, "/clock", 10)
    now_s = 1000.0

    def advance() -> None:
        nonlocal now_s
        now_s += 0.01
        clock.publish(Clock(clock=stamp()))

    def stamp() -> Time:
        return Time(sec=int(now_s), nanosec=int((now_s % 1) * 1e9))

    def sound() -> JointState:
        message = arm.sound()
        message.header.stamp = stamp()
        return message

    arm.make = sound
    arm.node.create_timer(0.01, advance)
    processes.run(bundle, "use_sim_time:=true")
    assert arm.until(arm.acts), processes.log()
    for jump_s in (-50.0, +50.0):
        now_s += jump_s
        arm.velocities.clear()
        assert arm.until(arm.acts), jump_s  # on messages of the new time
    arm.silence()
    now_s -= 50.0  # what it knows lies in the future now: it must not be taken for fresh
    assert arm.until(arm.is_safe)


def test_a_controller_that_load_starves_falls_back_and_does_not_make_up(
    arm: Arm, processes: Processes, tmp_path: Path
) -> None:
    bundle = write_joints(tmp_path / "bundle", {"rate_hz": RATE_HZ})
    process = processes.run(bundle)
    assert arm.until(arm.acts), processes.log()
    cpu = min(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        os.sched_setaffinity(int(thread), {cpu})
        os.setpriority(os.PRIO_PROCESS, int(thread), 19)
    hog = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(3)]
    try:
        arm.spin(3.0)
    finally:
        for each in hogs:
            each.kill()
            each.wait()
    ended = time.monotonic()
    arm.velocities.clear()
    assert arm.until(arm.acts)  # as soon as it has its share again
    arm.spin(1.0)
    heard = [t for t, _ in arm.velocities if t < ended + 1.0]
    assert len(heard) < 1.0 * RATE_HZ + 10  # what was missed does not come at once
    assert all(abs(x) <= 1.0 for _, v in arm.velocities for x in v)
    assert arm.until(lambda: int(arm.diagnostics[LOOP][2].get("late ticks", 0)) >= 10)
