"""The controller node in its own process, over real DDS on the loopback."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import Twist  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from iql_ros.signing import sign_bundle  # noqa: E402
from tests.keys import write_keys  # noqa: E402
from tests.small_bundle import write_bundle  # noqa: E402

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

START_S = 60.0  # an upper bound for a busy machine; it takes 2 s
CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP = 1, 3, 4, 2


class Robot:
    """Publishes odometry at 50 Hz, hears commands and diagnostics, drives the lifecycle."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.odometry = Odometry()
        self.talks = True
        self.commands: list[tuple[float, Twist]] = []
        self.shadows: list[Twist] = []
        self.details: list[str] = []
        self.publisher = self.node.create_publisher(Odometry, "/odom", 10)
        self.node.create_timer(0.02, self._talk)
        self.node.create_subscription(Twist, "/cmd", self._hear, 100)
        self.node.create_subscription(Twist, "/cmd/shadow", self.shadows.append, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        self.change = self.node.create_client(ChangeState, "/iql_controller/change_state")
        self.state = self.node.create_client(GetState, "/iql_controller/get_state")

    def _talk(self) -> None:
        if self.talks:
            self.publisher.publish(self.odometry)

    def _hear(self, command: Twist) -> None:
        self.commands.append((time.monotonic(), command))

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.details += [status.message for status in message.status]

    def spin(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, condition: Callable[[], object], seconds: float = START_S) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            self.executor.spin_once(timeout_sec=0.05)
        return True

    def transition(self, number: int) -> bool:
        assert self.until(self.change.service_is_ready)
        request = ChangeState.Request()
        request.transition.id = number
        future = self.change.call_async(request)
        assert self.until(future.done)
        return bool(future.result().success)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the node's process; its output goes to node.log."""
    running = []

    def start(*command: str) -> subprocess.Popen:
        log = (tmp_path / "node.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, env=dict(os.environ)
        )
        running.append((process, log))
        return process

    yield start
    for process, log in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle").path


def is_safe(command: Twist) -> bool:
    return command.linear.x == 0.0 and command.angular.z == 0.0


def test_it_moves_only_while_active_and_leaves_the_safe_command_behind(
    robot: Robot, start: Start, bundle: Path, tmp_path: Path
) -> None:
    robot.odometry.pose.pose.position.x = 2.0
    process = start(
        "iql_ros.nodes.controller", "--ros-args", "-p", f"bundle:={bundle}", "-p", "mode:=active"
    )
    assert robot.transition(CONFIGURE), (tmp_path / "node.log").read_text()
    robot.spin(0.5)
    assert not robot.commands
    assert robot.transition(ACTIVATE)
    assert robot.until(lambda: len(robot.commands) >= 20)
    assert not is_safe(robot.commands[-1][1])
    times = [t for t, _ in robot.commands]
    assert 0.7 < (times[-1] - times[0]) / ((len(times) - 1) / 20) < 1.4  # 20 Hz on a busy machine

    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert not any(heavy in maps for heavy in ("torch", "h5py", "mujoco"))

    assert robot.transition(DEACTIVATE)
    robot.spin(0.3)
    assert is_safe(robot.commands[-1][1])
    count = len(robot.commands)
    robot.spin(0.3)
    assert len(robot.commands) == count
    assert robot.transition(CLEANUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_without_a_message_of_a_needed_topic_it_never_publishes(
    robot: Robot, start: Start, bundle: Path
) -> None:
    robot.talks = False
    start("iql_ros.cli", "run", str(bundle), "--mode", "active")
    assert robot.until(lambda: any("is /odom publishing?" in text for text in robot.details))
    robot.spin(1.0)
    assert not robot.commands


def test_a_nan_gives_the_safe_action_and_the_status_names_the_field(
    robot: Robot, start: Start, bundle: Path
) -> None:
    robot.odometry.pose.pose.position.x = 2.0
    start("iql_ros.cli", "run", str(bundle), "--mode", "active")
    assert robot.until(lambda: robot.commands and not is_safe(robot.commands[-1][1]))
    robot.odometry.pose.pose.position.y = math.nan
    robot.details.clear()
    assert robot.until(lambda: "field 'position_y' is nan: not finite" in robot.details, 10)
    assert is_safe(robot.commands[-1][1])
    robot.odometry.pose.pose.position.y = 0.0
    assert robot.until(lambda: not is_safe(robot.commands[-1][1]), 10)


def test_a_dead_topic_gives_the_safe_action_within_its_age_and_a_tick(
    robot: Robot, start: Start, bundle: Path
) -> None:
    robot.odometry.pose.pose.position.x = 2.0
    start("iql_ros.cli", "run", str(bundle), "--mode", "active")
    assert robot.until(lambda: robot.commands and not is_safe(robot.commands[-1][1]))
    robot.talks = False
    silent_since = time.monotonic()
    assert robot.until(lambda: is_safe(robot.commands[-1][1]), 10)
    first_safe = next(t for t, command in robot.commands if t > silent_since and is_safe(command))
    # max_age 0.2 s and one tick of 0.05 s; the rest is this busy machine's
    assert first_safe - silent_since < 0.25 + 0.25


def test_with_a_public_key_it_configures_only_what_is_signed(
    robot: Robot, start: Start, bundle: Path, tmp_path: Path
) -> None:
    secret, public = write_keys(tmp_path / "keys", Ed25519PrivateKey.generate())
    parameters = ["-p", f"bundle:={bundle}", "-p", f"public_key:={public}"]
    start("iql_ros.nodes.controller", "--ros-args", *parameters)
    assert not robot.transition(CONFIGURE)
    assert "is not signed, and key" in (tmp_path / "node.log").read_text()
    sign_bundle(bundle, secret)
    assert robot.transition(CONFIGURE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_safe_command(
    robot: Robot, start: Start, bundle: Path, number: int
) -> None:
    robot.odometry.pose.pose.position.x = 2.0
    process = start("iql_ros.cli", "run", str(bundle), "--mode", "active")
    assert robot.until(lambda: robot.commands and not is_safe(robot.commands[-1][1]))
    process.send_signal(number)
    assert robot.until(lambda: process.poll() is not None, 20)
    robot.spin(0.3)
    assert process.returncode == 0
    assert is_safe(robot.commands[-1][1])


def test_shadow_mode_leaves_the_command_topic_alone(
    robot: Robot, start: Start, bundle: Path
) -> None:
    robot.odometry.pose.pose.position.x = 2.0
    start("iql_ros.cli", "run", str(bundle))  # it is the default
    assert robot.until(lambda: len(robot.shadows) > 5)
    assert not robot.commands


def test_an_altered_bundle_does_not_configure_and_the_log_says_why(
    robot: Robot, start: Start, bundle: Path, tmp_path: Path
) -> None:
    policy = bundle / "policy.onnx"
    data = bytearray(policy.read_bytes())
    data[len(data) // 2] ^= 1
    policy.write_bytes(data)
    process = start("iql_ros.cli", "run", str(bundle), "--mode", "active")
    assert process.wait(START_S) == 1
    assert "policy.onnx" in (tmp_path / "node.log").read_text()
    assert not robot.commands


def test_a_bundle_of_another_contract_does_not_configure(
    start: Start, bundle: Path, tmp_path: Path
) -> None:
    process = start("iql_ros.cli", "run", str(bundle), "--contract", "arm6")
    assert process.wait(START_S) == 1
    assert "first difference" in (tmp_path / "node.log").read_text()
