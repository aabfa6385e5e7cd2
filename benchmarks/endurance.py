"""One hour at 100 Hz over DDS in two processes: is memory flat, and is no fallback missed?

The topic falls silent every few seconds, at a random phase, until the safe command has come or the
patience has gone; the black box keeps what it always keeps. Memory counts from the first tenth on,
when the box's ring and the middleware's pools are filled.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy

from benchmarks._control_bundle import write_arm_bundle
from benchmarks._report import parse_arguments, progress, report
from benchmarks.control import controller, cpu_of, resident_mb
from benchmarks.faults import MAX_AGE_S, RATE_HZ, WIRE_MS, Robot

HOUR_S, QUICK_S = 3600.0, 45.0
TALKS_S = (3.0, 6.0)
"""Between two silences, drawn anew each time."""
SAID_EVERY_S = 60.0


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    total_s = QUICK_S if arguments.quick else HOUR_S
    rclpy.init()
    robot = Robot()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        bundle = write_arm_bundle(
            out / "bundle", {"rate_hz": RATE_HZ}, "/joints", "/command", MAX_AGE_S
        )
        with controller(bundle, out) as process:
            robot.until_acting()
            figures = endure(robot, process, total_s)
    robot.node.destroy_node()
    rclpy.shutdown()
    report("endurance", arguments.quick, figures)


def endure(robot: Robot, process: subprocess.Popen[bytes], total_s: float) -> dict[str, object]:
    """Feeds and starves the controller for `total_s`; returns what was seen."""
    draw = np.random.default_rng(0)
    took_ms: list[float] = []
    memory: list[tuple[float, float]] = []
    missed = 0
    began_s, cpu_s = time.monotonic(), cpu_of(process.pid)
    said_s = began_s
    robot.commands = 0
    while (now_s := time.monotonic()) < began_s + total_s:
        if now_s >= said_s:
            progress(f"{now_s - began_s:.0f} of {total_s:.0f} s, {len(took_ms)} fallbacks")
            said_s = now_s + SAID_EVERY_S
        feed(robot, draw.uniform(*TALKS_S))
        robot.spin(draw.uniform(0, 1 / RATE_HZ))
        sent_s = robot.send()
        if robot.until_safe():
            took_ms.append((robot.heard_s - sent_s) * 1e3)
        else:
            missed += 1
        robot.until_acting()
        memory.append((time.monotonic() - began_s, resident_mb(process.pid)))
    lasted_s = time.monotonic() - began_s
    settled = np.array([row for row in memory if row[0] > lasted_s / 10])
    slope, _ = np.polyfit(settled[:, 0], settled[:, 1], 1)
    bound_ms = (MAX_AGE_S + 1 / RATE_HZ) * 1e3
    return {
        "lasted_s": round(lasted_s, 1),
        "commands": robot.commands,
        "commands_share": round(robot.commands / (lasted_s * RATE_HZ), 4),
        "fallbacks": len(took_ms) + missed,
        "missed_fallbacks": missed,
        "within_bound": int(np.sum(np.array(took_ms) <= bound_ms + WIRE_MS)),
        "to_safe_p50_ms": round(float(np.quantile(took_ms, 0.5)), 2),
        "to_safe_worst_ms": round(max(took_ms), 2),
        "rss_first_mb": round(float(settled[0, 1]), 1),
        "rss_last_mb": round(float(settled[-1, 1]), 1),
        "rss_most_mb": round(float(settled[:, 1].max()), 1),
        "rss_mb_per_hour": round(float(slope * HOUR_S), 2),
        "open_files": len(os.listdir(f"/proc/{process.pid}/fd")),
        "threads": len(os.listdir(f"/proc/{process.pid}/task")),
        "cpu_share": round((cpu_of(process.pid) - cpu_s) / lasted_s, 4),
    }


def feed(robot: Robot, seconds: float) -> None:
    """Sends states at the controller's rate for so long."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        robot.send()
        robot.spin(1 / RATE_HZ)


if __name__ == "__main__":
    main()
