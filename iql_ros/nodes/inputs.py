"""The contract's topics come in through a node and a thread of their own.

rclpy prepares every wait anew for all that a node has. For a lifecycle node with its two dozen
services that took 0.5 ms, at each message; here it is only the subscriptions. It also keeps
services and the emergency stop alive when a topic floods, or when a policy hangs in its trigger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

WAIT_S = 0.1
"""Unbounded waits miss a shutdown now and then."""


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
        serve, executor = self._executor(kind, min(WAIT_S, period_s or WAIT_S))
        executor.add_node(self.node)

        def run() -> None:
            next_s = time.monotonic()
            while not self._stopped.is_set():
                serve()
                if period_s is not None and time.monotonic() >= next_s:
                    check()
                    next_s = time.monotonic() + period_s
            executor.shutdown()

        self._thread = threading.Thread(target=run, name="inputs", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float) -> bool:
        """Ends the thread; False if it did not end in time, as when a policy hangs."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(patience_s)
            return not self._thread.is_alive()
        return True

    def _executor(self, kind: str, wait_s: float) -> tuple[Callable[[], object], Any]:
        """A call that serves the node for at most `wait_s`, and the executor that it drives."""
        if kind == "events":
            try:
                from rclpy.experimental import EventsExecutor
            except ImportError as error:
                log = self._owner.get_logger()
                log.warning(f"this rclpy has no events executor ({error}): using single")
            else:
                events = EventsExecutor(context=self._owner.context)
                # Its spin() overflows a wait without deadline: a busy core, hardly a callback.
                return lambda: events.spin_until_future_complete(Future(), wait_s), events
        single = SingleThreadedExecutor(context=self._owner.context)
        return lambda: single.spin_once(wait_s), single
