"""Scheduler, CPUs and locked memory: for real where the system permits them, else a warning."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from tests.ros.robot import processes_in, robot_on
from tests.small_bundle import write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]


def schedulers(pid: int) -> set[int]:
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}


def priorities(pid: int) -> list[int]:
    threads = os.listdir(f"/proc/{pid}/task")
    return [os.sched_getparam(int(thread)).sched_priority for thread in threads]


def affinities(pid: int) -> set[frozenset[int]]:
    threads = os.listdir(f"/proc/{pid}/task")
    return {frozenset(os.sched_getaffinity(int(thread))) for thread in threads}


def locked_kb(pid: int) -> int:
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmLck" in line
    ]
    return int(line.split()[1])


def test_each_wish_is_granted_or_the_log_says_what_to_change(tmp_path: Path) -> None:
    bundle = pass_gate(write_bundle(tmp_path / "bundle"))
    cpu = max(os.sched_getaffinity(0))
    wishes = ("realtime_priority:=10", f"cpus:='{cpu}'", "lock_memory:=true")
    with processes_in(tmp_path) as processes, robot_on() as robot:
        process = processes.run(bundle, *wishes)
        assert robot.until(robot.moves), processes.log()
        log, pid = processes.log(), process.pid
        assert affinities(pid) == {frozenset({cpu})}  # threads that came later too
        if "realtime_priority 10: set LimitRTPRIO=99" not in log:
            assert schedulers(pid) == {os.SCHED_FIFO}
            assert sorted(priorities(pid))[-2:] == [10, 11]  # the thread that ticks goes first
        if "lock_memory: set LimitMEMLOCK=infinity" not in log:
            assert locked_kb(pid) > 50_000  # all of it: the interpreter alone has that
