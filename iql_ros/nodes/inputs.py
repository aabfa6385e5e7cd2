"""The contract's topics come in through a node and a thread of their own.

rclpy prepares every wait anew for all that a node has. For a lifecycle node with its two dozen
services that took 0.5 ms, at each message; here it is only the subscriptions. It also keeps
services and the emergency stop alive when a topic floods, or when a policy hangs in its trigger.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.task import Future

WAIT_S = 0.1
"""Unbounded waits miss a shutdown now and then."""
EVENTS_EVERY_S = 0.5
"""How often the wait for messages gives way to what else a node has, such as QoS events."""
Serve = Callable[[], object]


class Inputs:
    """A node with subscriptions only, and the thread that serves it.

    Attributes:
        node: takes subscriptions before `start`. Names given to it must be resolved already, as
            no remapping rule applies to it.
    """

    def __init__(self, owner: Any) -> None:
        """Makes the node, beside `owner`."""
        self._owner = owner
        self.node = rclpy.create_node(
            f"{owner.get_name()}_inputs",
            namespace=owner.get_namespace(),
            context=owner.context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, kind: str, check: Callable[[], None], period_s: float | None) -> None:
        """Serves the subscriptions.

        Args:
            kind: of executor, single or events.
            check: called about every `period_s`, in the same thread.
            period_s: None: never.
        """
        serve, end = self._server(kind, min(WAIT_S, period_s or WAIT_S))

        def run() -> None:
            next_s = time.monotonic()
            while not self._stopped.is_set():
                try:
                    serve()
                except Exception:  # whatever it was, the watch over the trigger must go on
                    self._owner.get_logger().error(traceback.format_exc())
                    self._stopped.wait(WAIT_S)
                if period_s is not None and time.monotonic() >= next_s:
                    check()
                    next_s = time.monotonic() + period_s
            end()

        self._thread = threading.Thread(target=run, name="inputs", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float) -> bool:
        """Ends the thread; False if it did not end in time, as when a policy hangs."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(patience_s)
            return not self._thread.is_alive()
        return True

    def _server(self, kind: str, wait_s: float) -> tuple[Serve, Serve]:
        """A call that serves the node for at most `wait_s`, and one that ends it."""
        if kind == "events":
            try:
                from rclpy.experimental import EventsExecutor
            except ImportError as error:
                log = self._owner.get_logger()
                log.warning(f"this rclpy has no events executor ({error}): using single")
            else:
                events = EventsExecutor(context=self._owner.context)
                events.add_node(self.node)
                # Its spin() overflows a wait without deadline: a busy core, hardly a callback.
                return lambda: events.spin_until_future_complete(Future(), wait_s), events.shutdown
        single = SingleThreadedExecutor(context=self._owner.context)
        single.add_node(self.node)
        return _Messages(self.node, single, wait_s).serve, single.shutdown


class _Messages:
    """Waits for messages as rclpy's `wait_for_message` does, on one wait set that is kept.

    rclpy's executor builds a wait set, a timer and a task for every message; with the caches cold
    that took 0.1 ms between a message's arrival and its callback at 500 Hz.
    """

    def __init__(self, node: Any, executor: SingleThreadedExecutor, wait_s: float) -> None:
        self._executor, self._wait_ns = executor, round(wait_s * 1e9)
        self._handles = [subscription.handle for subscription in node.subscriptions]
        self._ready = {s.handle.pointer: s for s in node.subscriptions}
        self._set = rclpy_implementation.WaitSet(
            len(self._handles), 0, 0, 0, 0, 0, node.context.handle
        )
        self._next_s = 0.0

    def serve(self) -> None:
        waiting = self._set
        waiting.clear_entities()
        for handle in self._handles:
            waiting.add_subscription(handle)
        waiting.wait(self._wait_ns)
        for pointer in waiting.get_ready_entities("subscription"):
            subscription = self._ready[pointer]
            taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken is not None:
                subscription.callback(taken[0])
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + EVENTS_EVERY_S
            self._executor.spin_once(0)
