"""A robot for tests: the other end of the controller's topics, services and parameters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

START_S = 60.0  # an upper bound for a busy machine; it takes 2 s
AGAIN_S, LOST_S = 5.0, 30.0  # an answer takes milliseconds, a transition up to a few seconds
GOALS = {1: "inactive", 2: "unconfigured", 3: "active", 4: "inactive"}  # by transition
Diagnosis = tuple[int, str, dict[str, str]]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Robot:
    """Publishes odometry at 50 Hz, hears commands and diagnostics, drives the node."""

    def __init__(self, namespace: str = "", domain: int | None = None) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("robot", namespace=namespace or "/", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.controller = f"{namespace}/iql_controller"
        self.odometry = Odometry()
        self.odometry.pose.pose.position.x = 2.0
        self.talks = True
        self.talked: float = 0.0
        self.commands: list[tuple[float, Twist]] = []
        self.shadows: list[Twist] = []
        self.details: list[str] = []
        self.diagnostics: dict[str, Diagnosis] = defaultdict(lambda: (-1, "", {}))
        self.heartbeats: list[tuple[float, DiagnosticStatus]] = []
        topics = self.node
        self.publisher = topics.create_publisher(Odometry, "/odom", 10)
        topics.create_timer(0.02, self._talk)
        topics.create_subscription(Twist, "/cmd", self._hear, 100)
        topics.create_subscription(Twist, "/cmd/shadow", self.shadows.append, 100)
        topics.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        topics.create_subscription(DiagnosticStatus, f"{self.controller}/heartbeat", self._beat, 10)
        self.button = topics.create_publisher(Bool, "emergency_stop", LATCHED)

    def _talk(self) -> None:
        if self.talks:
            self.odometry.header.stamp = self.node.get_clock().now().to_msg()
            self.publisher.publish(self.odometry)
            self.talked = time.monotonic()

    def _hear(self, command: Twist) -> None:
        self.commands.append((time.monotonic(), command))

    def _beat(self, beat: DiagnosticStatus) -> None:
        self.heartbeats.append((time.monotonic(), beat))

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.details.append(status.message)
            values = {pair.key: pair.value for pair in status.values}
            self.diagnostics[status.name] = (status.level[0], status.message, values)

    # -- waiting -----------------------------------------------------------------------

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

    def moves(self) -> bool:
        return bool(self.commands) and not is_safe(self.commands[-1][1])

    def rests(self) -> bool:
        return bool(self.commands) and is_safe(self.commands[-1][1])

    def since(self, t: float) -> list[Twist]:
        return [command for heard, command in self.commands if heard > t]

    def safe_after(self, t: float) -> float:
        """Seconds from t to the first safe command."""
        return next(heard for heard, c in self.commands if heard > t and is_safe(c)) - t

    # -- orders ------------------------------------------------------------------------

    def call(self, kind: Any, name: str, request: Any, again_s: float = START_S) -> Any:
        """Calls a service; asks again after a while, where that does no harm.

        A killed server may have got the request, and DDS drops the answer of a server that has
        not met the client yet.
        """
        answer = self._answer(kind, name, request, again_s, START_S)
        assert answer is not None, name
        return answer

    def _answer(
        self, kind: Any, name: str, request: Any, again_s: float, within_s: float
    ) -> Any | None:
        client = self.node.create_client(kind, name)
        assert self.until(client.service_is_ready), name
        given_up_s = time.monotonic() + within_s
        future = client.call_async(request)
        while not self.until(future.done, min(again_s, within_s)):
            if time.monotonic() > given_up_s:
                break
            future = client.call_async(request)
        self.node.destroy_client(client)
        return future.result() if future.done() else None

    def trigger(self, name: str, again_s: float = START_S) -> tuple[bool, str]:
        answer = self.call(Trigger, f"{self.controller}/{name}", Trigger.Request(), again_s)
        return answer.success, answer.message

    def set(self, name: str, value: object) -> str:
        """Sets a parameter; returns why it was refused, "" if it was not."""
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg()]
        name = f"{self.controller}/set_parameters"
        (result,) = self.call(SetParameters, name, request, AGAIN_S).results
        return "" if result.successful else result.reason

    def transition(self, number: int) -> bool:
        """Whether it came about; if the answer is lost, the state tells: asking again would not."""
        request = ChangeState.Request()
        request.transition.id = number
        name = f"{self.controller}/change_state"
        answer = self._answer(ChangeState, name, request, LOST_S, LOST_S)
        return self.state() == GOALS[number] if answer is None else bool(answer.success)

    def state(self) -> str:
        name = f"{self.controller}/get_state"
        answer = self.call(GetState, name, GetState.Request(), AGAIN_S)
        return str(answer.current_state.label)

    def press(self, *, stop: bool) -> None:
        self.button.publish(Bool(data=stop))

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


def is_safe(command: Twist) -> bool:
    return command.linear.x == 0.0 and command.angular.z == 0.0


@contextmanager
def robot_on(**options: Any) -> Iterator[Robot]:
    robot = Robot(**options)
    try:
        yield robot
    finally:
        robot.close()


class Processes:
    """Starts processes whose output goes to node.log, and whose black box stays in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = (folder / "node.log").open("w")
        self.running: list[subprocess.Popen[bytes]] = []

    def __call__(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "ROS_HOME": str(self.folder)},
        )
        self.running.append(process)
        return process

    def run(self, bundle: Path, *parameters: str) -> subprocess.Popen[bytes]:
        """Starts an active controller, with parameters such as speed:=0.5."""
        # auto would time its candidates for seconds
        given = [part for p in ("backend:=onnx", *parameters) for part in ("-p", p)]
        return self("iql_ros.cli", "run", str(bundle), "--mode", "active", "--", *given)

    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self._log.close()


@contextmanager
def processes_in(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder)
    try:
        yield processes
    finally:
        processes.close()
