"""Two joints for tests of faults: joint states as a test wants them, velocities as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from tests.ros.robot import Robot
from tests.small_gate import pass_gate
from tests.small_world import MAX_AGE_S, write_joint_bundle

RATE_HZ, SLACK_S = 50, 0.3
BOUND_S = MAX_AGE_S + 1 / RATE_HZ + SLACK_S
SECOND_NS = 1_000_000_000


def write_joints(out: Path, tick: dict[str, object]) -> Path:
    """A bundle for the two joints, its gate passed; returns its folder."""
    return pass_gate(write_joint_bundle(out, tick))


class Arm(Robot):
    """Publishes joint states as a test wants them; hears velocities."""

    def __init__(self) -> None:
        super().__init__()
        self.talks = False
        self.velocities: list[tuple[float, list[float]]] = []
        self.sent_s = 0.0
        reliable = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        self.joints = self.node.create_publisher(JointState, "/joint_states", reliable)
        self.node.create_subscription(Float64MultiArray, "/velocity", self._feel, 1000)
        self.make: Callable[[], JointState] = self.sound
        self.period_s = 0.01
        self._next_s = 0.0
        self.node.create_timer(0.002, self._send)

    def sound(self, offset_s: float = 0.0) -> JointState:
        message = JointState(name=["a", "b"], position=[1.0, -1.0], velocity=[0.5, 0.5])
        now_ns = self.node.get_clock().now().nanoseconds + round(offset_s * SECOND_NS)
        message.header.stamp = Time(sec=now_ns // SECOND_NS, nanosec=now_ns % SECOND_NS)
        return message

    def _send(self) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.period_s
            self.joints.publish(self.make())
            self.sent_s = time.monotonic()

    def _feel(self, message: Float64MultiArray) -> None:
        self.velocities.append((time.monotonic(), list(message.data)))

    def silence(self) -> None:
        self.period_s, self._next_s = math.inf, math.inf

    def speak(self) -> None:
        self.make, self.period_s, self._next_s = self.sound, 0.01, 0.0

    def acts(self) -> bool:
        return bool(self.velocities) and any(self.velocities[-1][1])

    def is_safe(self) -> bool:
        return bool(self.velocities) and not any(self.velocities[-1][1])

    def safe_within(self, t: float) -> float:
        """Seconds from t to the first safe command."""
        assert self.until(self.is_safe)
        return next(heard for heard, v in self.velocities if heard > t and not any(v)) - t

    def settle(self) -> None:
        """Acts again, by messages of this moment."""
        self.speak()
        assert self.until(self.acts)
        self.velocities.clear()
        assert self.until(self.acts)
