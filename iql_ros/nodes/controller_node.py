"""The lifecycle node: topics in, `Loop`, topics out.

configure  loads and verifies the bundle, makes subscriptions and publishers
activate   ticks and publishes
deactivate publishes the safe command, then stops
cleanup    lets everything go
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

from iql_ros.contract import Contract
from iql_ros.contracts.safety import check_speed
from iql_ros.errors import IqlRosError
from iql_ros.nodes import realtime, settings
from iql_ros.nodes.boxes import Boxes
from iql_ros.nodes.inputs import Inputs
from iql_ros.nodes.loading import load
from iql_ros.nodes.loop import Loop
from iql_ros.nodes.operation import EmergencyStop, Reloading
from iql_ros.nodes.recorder import Recorder, open_recorder
from iql_ros.nodes.reporting import Reporter
from iql_ros.nodes.settings import Settings, suffix_of
from iql_ros.nodes.ticking import SteadyTicks
from iql_ros.nodes.transitions import told
from iql_ros.nodes.waiting import LOOK_S, Waiting
from iql_ros.nodes.wiring import LATCHED, Wiring
from iql_ros.sampler import SECOND_NS, max_age_ns

NAME = "iql_controller"
LINGER_S = 0.2
PATIENCE_S = 3.0
HEARTBEAT_S = 0.1
REPORT_S = 1.0
_STEADY = Clock(clock_type=ClockType.STEADY_TIME)


class ControllerNode(LifecycleNode):
    """Runs one bundle; `settings` lists its parameters, `operation` its services.

    Attributes:
        refusal: why it would not configure or activate; a restart would be refused again.
    """

    def __init__(self, **options: Any) -> None:
        """Declares parameters and services; nothing else happens before configure.

        Raises:
            ParameterException: a parameter has the wrong type, or lies outside of its range.
            IqlRosError: it was given a parameter that it does not have.
        """
        super().__init__(NAME, **options)
        self.refusal: str | None = None
        self._loop: Loop | None = None
        self._boxes: Boxes | None = None
        self._recorder: Recorder | None = None
        self._command_publishers: dict[str, Any] = {}
        self._wiring = Wiring(self)
        self._waiting: Waiting | None = None
        self._inputs: Inputs | None = None
        self._ticks: SteadyTicks | None = None
        self._stop_ticking: Callable[[], object] = _nothing
        settings.declare(self)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._emergency_stop = EmergencyStop(self, lambda: self._loop)
        self._reloading = Reloading(self, lambda: self._loop)

    # -- transitions -----------------------------------------------------------------

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads and verifies the bundle; fails, saying why, if it must not run."""
        try:
            self._configure()
        except IqlRosError as error:
            self._release()
            return self._refuse(f"cannot configure: {error}")
        return super().on_configure(state)

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts to tick, if the bundle may move the robot."""
        assert self._loop is not None
        assert self._waiting is not None
        refusal = self._loop.loaded.permission.refusal
        if refusal is not None:
            return self._refuse(f"cannot activate: {refusal}")
        result = super().on_activate(state)
        self._waiting.begin()
        self._loop.start()
        rate_hz = self._loop.contract.tick.rate_hz
        if rate_hz is not None:
            self._start_ticking(rate_hz, self._loop)
        return result

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publishes the safe command, then stops."""
        self.stop()
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets bundle, subscriptions and publishers go."""
        self._release()
        return super().on_cleanup(state)

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops safely and lets everything go."""
        self.end()
        return super().on_shutdown(state)

    @told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops safely and goes back to unconfigured."""
        self.end()
        return super().on_error(state)

    def stop(self) -> None:
        """Ends ticking; the last message published is the safe command."""
        self._stop_ticking()
        self._stop_ticking, self._ticks = _nothing, None
        if self._loop is not None and self._loop.stop():
            self._linger()

    def end(self) -> None:
        """Stops, writes the black box, and lets everything go."""
        self.stop()
        if self._loop is not None:
            self._loop.keep("shutdown")
        self._release()

    def _refuse(self, text: str) -> TransitionCallbackReturn:
        self.refusal = text
        self.get_logger().error(text)
        return TransitionCallbackReturn.FAILURE

    def _linger(self) -> None:
        """Waits until the last command has arrived and was very likely taken.

        A reader forgets what it has not taken yet when its writer goes (seen with Fast DDS: the
        robot then kept the command before the safe one).
        """
        for publisher in self._command_publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=LINGER_S))
        time.sleep(LINGER_S)

    # -- configure -------------------------------------------------------------------

    def _configure(self) -> None:
        chosen = settings.read(self)
        loaded = load(chosen, chosen.bundle, uses_sim_time=self._uses_sim_time())
        contract = loaded.bundle.contract
        for text in realtime.apply(chosen):
            self.get_logger().warning(text)
        name = self.get_fully_qualified_name().strip("/").replace("/", ".")
        if chosen.black_box:
            folder = Path(chosen.black_box).expanduser()
            self._boxes = Boxes(folder, name, chosen.black_box_s, self.get_logger().info)
        self._recorder = open_recorder(chosen, loaded, name, self.get_logger().error)
        loop = self._loop = Loop(
            loaded,
            chosen,
            self._choose_clock(),
            self._publish,
            self.get_logger(),
            self._boxes,
            recorder=self._recorder,
            may_begin=lambda: self._emergency_stop.has_listened,
        )
        self._emergency_stop.apply_to(loop)
        self._wire(loop, contract, chosen)
        self.get_logger().info(
            f"robot {contract.robot}, bundle {chosen.bundle} ({loaded.bundle.digest[:12]}), mode "
            f"{chosen.mode}, backend {loaded.opened.backend} ({loaded.opened.reason}), "
            f"{len(contract.subscriptions)} topics in, {len(contract.outputs)} out; gate: "
            f"{loaded.permission.gate}"
        )

    def _wire(self, loop: Loop, contract: Contract, chosen: Settings) -> None:
        wiring, inputs = self._wiring, Inputs(self)
        self._inputs = inputs
        for alias in contract.outputs:
            topic = contract.topics[alias]
            self._command_publishers[alias] = wiring.advertise(topic, suffix_of(chosen))
            if loop.incumbent is not None:
                wiring.subscribe(inputs.node, topic, partial(loop.receive_incumbent, alias))
        for alias in contract.subscriptions:
            wiring.subscribe(inputs.node, contract.topics[alias], partial(loop.receive, alias))
        for alias in contract.unseen if loop.recorder is not None else ():
            wiring.subscribe(inputs.node, contract.topics[alias], partial(loop.overhear, alias))
        reporter = Reporter(self, loop, wiring.problems)
        waiting = self._waiting = Waiting(self, loop, wiring.problems)
        wiring.timer(LOOK_S, waiting.look, _STEADY)
        diagnostics = wiring.publisher(DiagnosticArray, "/diagnostics", 10)
        heartbeat = wiring.publisher(DiagnosticStatus, "~/heartbeat", 10)
        wiring.timer(HEARTBEAT_S, lambda: heartbeat.publish(reporter.heartbeat()), _STEADY)
        wiring.timer(REPORT_S, lambda: diagnostics.publish(reporter.report(self._late())), _STEADY)
        description = wiring.publisher(String, "~/contract", LATCHED)
        description.publish(String(data=contract.canonical_json()))
        trigger, period_s = contract.tick.trigger, None
        if trigger is not None:  # a dead one must not leave the last command standing
            period_s = min(0.05, max_age_ns(contract, trigger) / SECOND_NS / 4)
        inputs.start(chosen.executor, loop.check_overdue, period_s)

    def _release(self) -> None:
        inputs, self._inputs = self._inputs, None
        has_ended = inputs is None or inputs.stop(PATIENCE_S)
        if has_ended:
            self._wiring.undo()
            if inputs is not None:
                inputs.node.destroy_node()
        else:  # what a policy that hangs still holds cannot be destroyed
            self.get_logger().error("a tick has not ended: restart the process")
        self._command_publishers = {}
        if self._boxes is not None:
            self._boxes.close()
            self._boxes = None
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    # -- parameters ------------------------------------------------------------------

    def _check_parameters(self, parameters: list[Any]) -> SetParametersResult:
        loop = self._loop
        result = settings.check_change(parameters, is_configured=loop is not None)
        if result.successful and loop is not None:
            for parameter in parameters:
                if parameter.name == "speed":
                    try:
                        check_speed(loop.contract, parameter.value)
                    except IqlRosError as error:
                        return SetParametersResult(successful=False, reason=str(error))
        return result

    def _take_parameters(self, parameters: list[Any]) -> None:
        for parameter in parameters:
            if parameter.name == "speed" and self._loop is not None:
                self._loop.speed = parameter.value

    # -- the loop --------------------------------------------------------------------

    def _start_ticking(self, rate_hz: float, loop: Loop) -> None:
        """Starts ticks at a rate: of /clock in simulation, else of the steady clock."""
        if self._uses_sim_time():
            timer = self.create_timer(1 / rate_hz, loop.tick, clock=self.get_clock())
            self._stop_ticking = lambda: self.destroy_timer(timer)
        else:
            self._ticks = SteadyTicks(rate_hz, loop.tick)
            self._stop_ticking = self._ticks.stop

    def _publish(self, payloads: Mapping[str, bytes]) -> None:
        for alias, payload in payloads.items():
            self._command_publishers[alias].publish(payload)

    def _late(self) -> int:
        return 0 if self._ticks is None else self._ticks.late

    def _choose_clock(self) -> Callable[[], int]:
        """What gives arrival and tick times, ns; the system's clock without ROS around it.

        At 500 Hz, with cold caches, `get_clock().now()` takes 60 us, `time_ns` 3.
        """
        if self._uses_sim_time():
            return lambda: int(self.get_clock().now().nanoseconds)
        return time.time_ns

    def _uses_sim_time(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)


def _nothing() -> None:
    """Ends ticking that was never begun."""
