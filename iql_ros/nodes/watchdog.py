"""Watches a tick from outside, as a policy that never returns cannot be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Watchdog:
    """Calls `act` once if a tick takes too long, from a thread of its own.

    Attributes:
        has_bitten: whether it has, in the tick under way or the last one.
    """

    def __init__(self, limit_s: float, act: Callable[[float], None]) -> None:
        """Starts at once; `act` is told for how long the tick has taken, seconds."""
        self._limit_s, self._act = limit_s, act
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self.has_bitten = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A tick begins."""
        self.has_bitten = False
        self._began_s = time.monotonic()

    def end(self) -> bool:
        """The tick is done; whether `act` has been called meanwhile. It will not be any more."""
        with self._lock:
            self._began_s = None
            return self.has_bitten

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._limit_s / 4):
            with self._lock:
                if self._began_s is None or self.has_bitten:
                    continue
                taken_s = time.monotonic() - self._began_s
                if taken_s > self._limit_s:
                    self.has_bitten = True
                    self._act(taken_s)
