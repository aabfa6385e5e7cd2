"""Time to the safe action after a topic dies, over DDS in two processes, at 100 Hz.

Each trial feeds the controller until it acts, falls silent at a random phase of its tick, and waits
for the first safe command. The bound is the contract's: max_age and one tick. Both ends of the wire
lie in the time that is measured, so `within_bound` allows `WIRE_MS` for them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from benchmarks._control_bundle import JOINTS, write_arm_bundle
from benchmarks._report import parse_arguments, progress, report
from benchmarks.control import controller

MAX_AGE_S, RATE_HZ = 0.1, 100
WIRE_MS = 5.0
GIVEN_UP_S = 10.0


class Robot:
    """Sends joint states, and remembers when commands came and whether they were safe."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._message = JointState(name=list(JOINTS), position=[0.1] * 6, velocity=[0.2] * 6)
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = self.node.create_publisher(JointState, "/joints", qos)
        self.node.create_subscription(Float64MultiArray, "/command", self._hear, qos)
        self.heard_s, self.is_safe, self.commands = 0.0, True, 0

    def _hear(self, message: Float64MultiArray) -> None:
        self.heard_s, self.is_safe = time.monotonic(), not any(message.data)
        self.commands += 1

    def send(self) -> float:
        """Sends a state; returns when, in seconds of the steady clock."""
        sent_s = time.monotonic()
        self._publisher.publish(self._message)
        return sent_s

    def spin(self, seconds: float) -> None:
        """Hears for so long."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def until_acting(self) -> float:
        """Feeds the controller until it acts; returns when the last state was sent."""
        given_up_s = time.monotonic() + 60
        sent_s = 0.0
        while self.is_safe:
            sent_s = self.send()
            self.spin(0.01)
            if time.monotonic() > given_up_s:
                raise TimeoutError("the controller does not act")
        return sent_s

    def until_safe(self) -> bool:
        """Waits, silent, for the safe command; whether it came."""
        given_up_s = time.monotonic() + GIVEN_UP_S
        while not self.is_safe and time.monotonic() < given_up_s:
            self._executor.spin_once(timeout_sec=0.1)
        return self.is_safe


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    trials = 60 if arguments.quick else 1000
    phases = np.random.default_rng(0).uniform(0, 1 / RATE_HZ, trials)
    took_ms, missed = [], 0
    rclpy.init()
    robot = Robot()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        bundle = write_arm_bundle(
            out / "bundle", {"rate_hz": RATE_HZ}, "/joints", "/command", MAX_AGE_S
        )
        with controller(bundle, out):
            for i, phase in enumerate(phases):
                if i % 100 == 0:
                    progress(f"trial {i} of {trials}")
                robot.until_acting()
                robot.spin(float(phase))
                sent_s = robot.send()
                if robot.until_safe():
                    took_ms.append((robot.heard_s - sent_s) * 1e3)
                else:
                    missed += 1
    robot.node.destroy_node()
    rclpy.shutdown()
    bound_ms = (MAX_AGE_S + 1 / RATE_HZ) * 1e3
    report(
        "faults",
        arguments.quick,
        {
            "trials": trials,
            "missed": missed,
            "bound_ms": bound_ms,
            "within_bound": int(np.sum(np.array(took_ms) <= bound_ms + WIRE_MS)),
            "p50_ms": round(float(np.quantile(took_ms, 0.5)), 2),
            "p99_ms": round(float(np.quantile(took_ms, 0.99)), 2),
            "worst_ms": round(max(took_ms), 2),
        },
    )


if __name__ == "__main__":
    main()
