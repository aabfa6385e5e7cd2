"""What a person may tell the node while it runs: stop, release, another bundle, go back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from iql_ros.errors import IqlRosError
from iql_ros.nodes import settings
from iql_ros.nodes.loading import Loaded, load
from iql_ros.nodes.loop import Loop
from iql_ros.nodes.wiring import LATCHED

STOP_TOPIC = "emergency_stop"
GID_BYTES = 16
"""Of a publisher's identifier; some versions fill it up with zeros."""
LISTENS_EVERY_S = 0.1
LATCHED_S = 5.0
"""A latched message may come so late: Fast DDS repeats an offer that was lost after 3 s."""
_STEADY = Clock(clock_type=ClockType.STEADY_TIME)


class EmergencyStop:
    """The latch, in whatever state the node is.

    The topic can only stop; what releases is the service, and not while the topic says stop.

    Attributes:
        reason: why it is latched; None if it is not.
        has_listened: whether it has been listening for as long as the parameter `listen_s` says,
            since all inputs were heard, and latched publishers that the middleware has found have
            spoken, or had `LATCHED_S`. Where nobody has been found yet there is nothing to hear;
            and a stop from before our start may be heard later than the sensors beside it (70 ms,
            seen with Jazzy).
    """

    def __init__(self, node: Any, loop: Callable[[], Loop | None]) -> None:
        """Listens on `emergency_stop`; serves `~/emergency_stop` and `~/release`."""
        self._node, self._loop = node, loop
        self.reason: str | None = None
        self._says_stop: dict[bytes, bool] = {}
        # Counted by a timer, as only time in which messages are served is time spent listening.
        self._listen_s = float(node.get_parameter("listen_s").value)
        self.has_listened = self._listen_s <= 0
        self._listened_s, self._latched = 0.0, 0
        self._timer = node.create_timer(LISTENS_EVERY_S, self._listen, clock=_STEADY)
        # The first hears every publisher, the second what a latched one said before we were here.
        # That it does not fit a volatile publisher is no news.
        volatile = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for qos, hear in ((volatile, self._hear), (LATCHED, self._hear_latched)):
            node.create_subscription(
                Bool,
                STOP_TOPIC,
                _callback(hear),
                qos,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )
        node.create_service(Trigger, "~/emergency_stop", self._stop)
        node.create_service(Trigger, "~/release", self._release)

    def apply_to(self, loop: Loop) -> None:
        """Latches a loop that is new, and listens anew before that may begin."""
        self.has_listened, self._listened_s = self._listen_s <= 0, 0.0
        self._timer.reset()
        if self.reason is not None:
            loop.halt(self.reason)

    def latch(self, reason: str) -> None:
        """Stops, until it is released."""
        loop = self._loop()
        if loop is not None and loop.halted is None:
            loop.halt(reason)
        if self.reason is None:
            self.reason = reason
            self._node.get_logger().error(f"emergency stop: {reason}")

    def _listen(self) -> None:
        loop = self._loop()
        if loop is None or loop.account.unheard:
            return
        self._listened_s += LISTENS_EVERY_S
        if self._listened_s < self._listen_s:
            return
        if self._listened_s >= LATCHED_S or self._latched >= self._count_latched():
            self.has_listened = True
            self._timer.cancel()

    def _count_latched(self) -> int:
        name = self._node.resolve_topic_name(STOP_TOPIC)
        infos = self._node.get_publishers_info_by_topic(name)
        return sum(info.qos_profile.durability == LATCHED.durability for info in infos)

    def _hear_latched(self, message: Bool, info: Mapping[str, Any]) -> None:
        self._latched += 1
        self._hear(message, info)

    def _hear(self, message: Bool, info: Mapping[str, Any]) -> None:
        # Each publisher is a button of its own: one that says false does not lift another's.
        gid = info.get("publisher_gid") or {}  # older rclpy do not tell: then the last word counts
        self._says_stop[bytes(gid.get("data", b""))[:GID_BYTES]] = message.data
        if message.data:
            self.latch(f"topic {self._node.resolve_topic_name(STOP_TOPIC)}")

    def _stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.latch(f"service {self._node.resolve_service_name('~/emergency_stop')}")
        return _answer(response, True, "stopped")

    def _release(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        name = self._node.resolve_topic_name(STOP_TOPIC)
        if self._is_pressed(name):
            return _answer(response, False, f"{name} still says stop: let it say false first")
        loop = self._loop()
        if loop is not None and not loop.release():
            return _answer(response, False, "a tick has not ended: restart the node")
        self.reason = None
        self._node.get_logger().info("released")
        return _answer(response, True, "released")

    def _is_pressed(self, name: str) -> bool:
        """Whether a publisher that is still there said stop last."""
        infos = self._node.get_publishers_info_by_topic(name)
        there = {bytes(info.endpoint_gid)[:GID_BYTES] for info in infos}
        if not there.intersection(self._says_stop):  # not told apart: any may be the one
            return bool(there) and any(self._says_stop.values())
        return any(says for gid, says in self._says_stop.items() if gid in there)


def _callback(hear: Callable[[Bool, Mapping[str, Any]], None]) -> Callable[..., None]:
    """What a subscription takes: Humble's rclpy gives a callback the message alone."""
    if hasattr(Subscription, "CallbackType"):
        return hear
    return lambda message: hear(message, {})


class Reloading:
    """Another bundle while the node runs, and back."""

    def __init__(self, node: Any, loop: Callable[[], Loop | None]) -> None:
        """Serves `~/reload` and `~/rollback`."""
        self._node, self._loop = node, loop
        self._is_busy = False
        node.create_service(Trigger, "~/reload", self._reload)
        node.create_service(Trigger, "~/rollback", self._rollback)

    async def _reload(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Loads parameter `bundle` beside the one that runs; messages are served meanwhile."""
        return await self._change(
            response,
            lambda loop: load(
                settings.read(self._node), self._path(), uses_sim_time=self._uses_sim_time()
            ),
        )

    async def _rollback(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Goes back to the bundle before; it is open still."""
        return await self._change(response, _previous)

    async def _change(
        self, response: Trigger.Response, find: Callable[[Loop], Loaded]
    ) -> Trigger.Response:
        loop = self._loop()
        if loop is None:
            return _answer(response, False, "there is nothing to replace: configure first")
        if self._is_busy:
            return _answer(response, False, "another bundle is being loaded: wait for its answer")
        self._is_busy = True
        try:
            work = _Work(lambda: loop.swap(find(loop)))
            while not work.done.is_set():
                await _pause()
        finally:
            self._is_busy = False
        if self._loop() is not loop:
            return _answer(
                response, False, "the node was cleaned up meanwhile: nothing has changed"
            )
        if work.error is not None:
            text = f"{loop.loaded.bundle.path} runs on: {work.error}"
            self._node.get_logger().error(text)
            return _answer(response, False, text)
        path = str(loop.loaded.bundle.path)
        self._node.set_parameters([Parameter("bundle", value=path)])
        text = f"now runs {path} ({loop.loaded.bundle.digest[:12]})"
        self._node.get_logger().info(text)
        return _answer(response, True, text)

    def _uses_sim_time(self) -> bool:
        return bool(self._node.get_parameter("use_sim_time").value)

    def _path(self) -> str:
        return str(self._node.get_parameter("bundle").value)


class _Work:
    """Runs a function in a thread of its own."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.done = threading.Event()
        self.error: str | None = None
        self._function = function
        threading.Thread(target=self._run, name="loading", daemon=True).start()

    def _run(self) -> None:
        try:
            self._function()
        except IqlRosError as error:
            self.error = str(error)
        except Exception as error:  # whatever it is, the bundle that runs goes on
            self.error = repr(error)
        finally:
            self.done.set()


class _pause:
    """Gives way to the executor's other callbacks once, and keeps the wait from burning a core."""

    def __await__(self) -> Generator[None, None, None]:
        time.sleep(0.001)
        yield


def _previous(loop: Loop) -> Loaded:
    if loop.previous is None:
        raise IqlRosError("no other bundle has run since configure")
    return loop.previous


def _answer(response: Trigger.Response, success: bool, text: str) -> Trigger.Response:
    response.success, response.message = success, text
    return response
