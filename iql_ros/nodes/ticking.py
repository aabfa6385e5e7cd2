"""A thread that ticks at absolute deadlines of the steady clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from iql_ros.nodes.realtime import go_first
from iql_ros.sampler import tick_offset

NAP_S = 0.1
EARLY_S = 0.00005
"""A wake takes about so long: the sleep ends as much earlier, and what is left is spun away."""


class SteadyTicks:
    """Calls `tick` at start + k / rate until stopped; a late tick is never made up for.

    Attributes:
        late: deadlines that passed before the tick before them was done.
    """

    def __init__(self, rate_hz: float, tick: Callable[[int], None]) -> None:
        """Starts at once; `tick` is told how long after its deadline it begins, ns."""
        self._rate_hz = rate_hz
        self._tick = tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)
        self.late = 0
        self._thread.start()

    def stop(self) -> None:
        """Ends ticking; returns when the tick under way is done."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        go_first()
        start_ns = deadline_ns = time.monotonic_ns()
        k = 0
        while not self._stopped.is_set():
            self._tick(time.monotonic_ns() - deadline_ns)
            elapsed_ns = time.monotonic_ns() - start_ns
            following = k + 1
            k = max(following, int(elapsed_ns * self._rate_hz / 1e9) + 1)
            self.late += k - following
            deadline_ns = start_ns + tick_offset(k, self._rate_hz)
            self._sleep_until(deadline_ns)

    def _sleep_until(self, deadline_ns: int) -> None:
        """Sleeps, looking up now and then; an event's timed wait wakes later than `sleep`."""
        while not self._stopped.is_set():
            left_s = (deadline_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            if left_s > EARLY_S:
                time.sleep(min(left_s - EARLY_S, NAP_S))
