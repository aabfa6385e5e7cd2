"""The lifecycle node: topics in, `Controller`, topics out.

configure  loads and verifies the bundle, makes subscriptions and publishers
activate   ticks and publishes
deactivate publishes the safe command, then stops
cleanup    lets everything go
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from iql_ros.bundle import load_bundle
from iql_ros.contract import Contract, load_contract, require_same
from iql_ros.controller import Command, Controller
from iql_ros.errors import IqlRosError
from iql_ros.nodes.ticking import SteadyTicks
from iql_ros.nodes.types import installed_types, message_class
from iql_ros.policies import open_policy
from iql_ros.sampler import SECOND_NS, max_age_ns
from iql_ros.schema import Topic
from iql_ros.signing import require_signature
from iql_ros.status import Status

NAME = "iql_controller"
MODES = ("active", "shadow")
LATENCIES_KEPT = 10_000
LINGER_S = 0.2
_STEADY = Clock(clock_type=ClockType.STEADY_TIME)
_IDLE = Command(0, Status.WAITING, "not active", np.zeros(0), {})


class ControllerNode(LifecycleNode):
    """Runs one bundle.

    Parameters, each read at configure: bundle, mode, backend, and contract, which may be left
    empty; where it is given, a bundle made by another contract is refused.
    """

    def __init__(self, **options: Any) -> None:
        """Declares the parameters; nothing else happens before configure."""
        super().__init__(NAME, **options)
        self.declare_parameter("bundle", "")
        self.declare_parameter("contract", "")
        self.declare_parameter("mode", "shadow")  # moving the robot is for the user to say
        self.declare_parameter("backend", "auto")
        self.declare_parameter("public_key", "")
        self._controller: Controller | None = None
        self._publishers_by_alias: dict[str, Any] = {}
        self._entities: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._stop_ticking: Callable[[], object] = _nothing
        self._active = False
        self._latest = _IDLE
        self._counts = dict.fromkeys(Status, 0)
        self._latency_us: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._digest = ""

    # -- transitions -----------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads and verifies the bundle; fails, saying why, if it must not run."""
        try:
            self._configure()
        except IqlRosError as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy swallows it without a trace otherwise
            self.get_logger().error(f"configure failed: {error!r}")
            self._release()
            return TransitionCallbackReturn.ERROR
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts to tick."""
        result = super().on_activate(state)
        with self._lock:
            assert self._controller is not None
            self._controller.restart()
            self._counts = dict.fromkeys(Status, 0)
            self._latest = replace(_IDLE, detail=_waiting_text(self._controller.contract))
            self._active = True
        rate_hz = self._controller.contract.tick.rate_hz
        if rate_hz is not None:
            self._stop_ticking = self._start_ticking(rate_hz)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publishes the safe command, then stops."""
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets bundle, subscriptions and publishers go."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops safely and lets everything go."""
        self.stop()
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops safely and goes back to unconfigured."""
        self.stop()
        self._release()
        return super().on_error(state)

    def stop(self) -> None:
        """Ends ticking; the last message published is the safe command."""
        self._stop_ticking()
        self._stop_ticking = _nothing
        with self._lock:
            if self._active and self._controller is not None:
                command = self._controller.stop(self._now_ns())
                self._send(command)
                if command.payloads:
                    self._linger()
            self._active = False
            self._latest = _IDLE

    def _linger(self) -> None:
        """Waits until the last command has arrived and was very likely taken.

        A reader forgets what it has not taken yet when its writer goes (seen with Fast DDS: the
        robot then kept the command before the safe one).
        """
        for publisher in self._publishers_by_alias.values():
            publisher.wait_for_all_acked(Duration(seconds=LINGER_S))
        time.sleep(LINGER_S)

    # -- configure -------------------------------------------------------------------

    def _configure(self) -> None:
        path = self._text("bundle")
        mode = self._text("mode")
        if not path:
            raise IqlRosError("parameter 'bundle' is empty: give the folder of a policy bundle")
        if mode not in MODES:
            raise IqlRosError(f"parameter 'mode' is {mode!r}: it must be one of {MODES}")
        bundle = load_bundle(path)
        if self._text("public_key"):
            require_signature(bundle, Path(self._text("public_key")))
        opened = open_policy(bundle, self._text("backend"))
        contract = bundle.contract
        if self._text("contract"):
            require_same(load_contract(self._text("contract")), contract, path)
        self._digest = bundle.digest
        self._controller = Controller(contract, opened.policy, installed_types(contract))
        for alias in contract.outputs:
            self._advertise(alias, contract.topics[alias], mode)
        for alias in self._controller.inputs:
            self._subscribe(alias, contract.topics[alias])
        self._watch(contract)
        report = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        timer = self.create_timer(1.0, lambda: self._report(report), clock=_STEADY)
        self._entities += [
            lambda: self.destroy_timer(timer),
            lambda: self.destroy_publisher(report),
        ]
        self.get_logger().info(
            f"robot {contract.robot}, bundle {path} ({bundle.digest[:12]}), mode {mode}, "
            f"backend {opened.backend} ({opened.reason}), "
            f"{len(self._controller.inputs)} topics in, {len(contract.outputs)} out"
        )

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _advertise(self, alias: str, topic: Topic, mode: str) -> None:
        name = topic.topic if mode == "active" else f"{topic.topic}/shadow"
        qos = _qos(topic, default=ReliabilityPolicy.RELIABLE)
        publisher = self.create_lifecycle_publisher(message_class(topic.type), name, qos)
        self._publishers_by_alias[alias] = publisher
        self._entities.append(lambda: self.destroy_publisher(publisher))

    def _subscribe(self, alias: str, topic: Topic) -> None:
        subscription = self.create_subscription(
            message_class(topic.type),
            topic.topic,
            lambda payload: self._receive(alias, payload),
            _qos(topic, default=ReliabilityPolicy.BEST_EFFORT),
            raw=True,
        )
        self._entities.append(lambda: self.destroy_subscription(subscription))

    def _watch(self, contract: Contract) -> None:
        """A dead trigger topic must not leave the last command standing."""
        if contract.tick.trigger is None:
            return
        period_s = min(0.05, max_age_ns(contract, contract.tick.trigger) / SECOND_NS / 4)
        clock = self.get_clock() if self._uses_sim_time() else _STEADY
        timer = self.create_timer(period_s, self._check_overdue, clock=clock)
        self._entities.append(lambda: self.destroy_timer(timer))

    def _release(self) -> None:
        for destroy in reversed(self._entities):
            destroy()
        self._entities = []
        self._publishers_by_alias = {}
        self._controller = None

    # -- the loop --------------------------------------------------------------------

    def _receive(self, alias: str, payload: bytes) -> None:
        start = time.perf_counter_ns()
        with self._lock:
            if self._controller is None:  # cleaned up with a message under way
                return
            now_ns = self._now_ns()
            if self._controller.put(alias, now_ns, payload) and self._active:
                self._send(self._controller.tick(now_ns))
                self._latency_us.append((time.perf_counter_ns() - start) / 1e3)

    def _start_ticking(self, rate_hz: float) -> Callable[[], object]:
        """Starts clock-driven ticks and returns what ends them."""
        if self._uses_sim_time():
            timer = self.create_timer(1 / rate_hz, self._tick, clock=self.get_clock())
            return lambda: self.destroy_timer(timer)
        return SteadyTicks(rate_hz, self._tick).stop

    def _tick(self) -> None:
        start = time.perf_counter_ns()
        with self._lock:
            if self._active and self._controller is not None:
                self._send(self._controller.tick(self._now_ns()))
                self._latency_us.append((time.perf_counter_ns() - start) / 1e3)

    def _check_overdue(self) -> None:
        with self._lock:
            if self._active and self._controller is not None:
                command = self._controller.overdue(self._now_ns())
                if command is not None:
                    self._send(command)

    def _send(self, command: Command) -> None:
        for alias, payload in command.payloads.items():
            self._publishers_by_alias[alias].publish(payload)
        self._counts[command.status] += 1
        before, now = self._latest.status, command.status
        if now.acts and not before.acts:
            self.get_logger().info("acting")
        elif not now.acts and now != before:
            self.get_logger().warning(f"safe action, {now.value}: {command.detail}")
        self._latest = command

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _uses_sim_time(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)

    # -- diagnostics -----------------------------------------------------------------

    def _report(self, publisher: Any) -> None:
        with self._lock:
            latest, counts = self._latest, dict(self._counts)
            latencies = sorted(self._latency_us)
            active = self._active
        acts = latest.status.acts
        level = DiagnosticStatus.OK if acts or not active else DiagnosticStatus.WARN
        values: dict[str, object] = {
            "active": active,
            "status": latest.status.value,
            "detail": latest.detail,
        }
        values |= {f"ticks {status.value}": count for status, count in counts.items()}
        values |= {f"age_s {alias}": round(age, 4) for alias, age in latest.ages_s.items()}
        for percent in (50, 99):
            if latencies:
                i = min(len(latencies) - 1, len(latencies) * percent // 100)
                values[f"latency_us p{percent}"] = round(latencies[i], 1)
        values["bundle"] = self._digest
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [
            DiagnosticStatus(
                level=level,
                name=f"{self.get_name()}: policy",
                message=latest.detail if not acts else latest.status.value,
                hardware_id="",
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        ]
        publisher.publish(message)


def _qos(topic: Topic, default: ReliabilityPolicy) -> QoSProfile:
    reliability = {
        None: default,
        "reliable": ReliabilityPolicy.RELIABLE,
        "best_effort": ReliabilityPolicy.BEST_EFFORT,
    }[topic.qos.reliability]
    durability = (
        DurabilityPolicy.TRANSIENT_LOCAL
        if topic.qos.durability == "transient_local"
        else DurabilityPolicy.VOLATILE
    )
    return QoSProfile(depth=topic.qos.depth, reliability=reliability, durability=durability)


def _waiting_text(contract: Contract) -> str:
    trigger = contract.tick.trigger
    return "no tick yet" + (
        f": is {contract.topics[trigger].absolute} publishing?" if trigger is not None else ""
    )


def _nothing() -> None:
    """Ends ticking that was never begun."""


def main(args: Sequence[str] | None = None, *, autostart: bool = False) -> int:
    """Runs the node until SIGINT or SIGTERM; the last message sent is the safe command.

    Args:
        args: command line with ROS arguments; None for the process's own.
        autostart: configure and activate at once, without a lifecycle manager.

    Returns:
        Exit code: 1 if autostart could not bring the node up.
    """
    stop = threading.Event()
    # The default handlers invalidate the context first: no last command could be sent.
    rclpy.init(
        args=None if args is None else [*args], signal_handler_options=SignalHandlerOptions.NO
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = ControllerNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started = not autostart or _start(node)
    while started and not stop.is_set():
        executor.spin_once(timeout_sec=0.1)  # unbounded waits miss a shutdown now and then
    node.stop()
    # destroy_node can spin for ever when peers stop together: let a second signal end it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return 0 if started else 1


def _start(node: ControllerNode) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() == success and node.trigger_activate() == success


if __name__ == "__main__":
    raise SystemExit(main())
