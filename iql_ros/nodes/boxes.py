"""Recordings of the black box, written to a folder by a thread of their own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from iql_ros.blackbox.recording import Recording
from iql_ros.blackbox.ring import BlackBox
from iql_ros.errors import IqlRosError

KEPT = 20
"""Recordings in the folder; the oldest goes."""


class Boxes:
    """Writes recordings. Nothing here raises or waits, `close` apart."""

    def __init__(
        self, folder: Path, name: str, seconds: float, log: Callable[[str], object]
    ) -> None:
        """Starts the writer.

        Args:
            folder: made when it is needed.
            name: of the node; begins the names of its files.
            seconds: that a recording goes back; faults are recorded no more often than that.
            log: told what was written, and what could not be.
        """
        self._folder, self._name, self._seconds, self._log = folder, name, seconds, log
        self._last_fault_s = -seconds
        self._waiting: queue.Queue[tuple[str, BlackBox, Recording] | None] = queue.Queue(4)
        self._thread = threading.Thread(target=self._run, name="black box", daemon=True)
        self._thread.start()

    def keep(self, why: str, box: BlackBox, *, is_fault: bool = False) -> None:
        """Has what the box holds now written; a fault soon after another is left out."""
        now_s = time.monotonic()
        if is_fault and now_s - self._last_fault_s < self._seconds:
            return
        recording = box.recording()
        if recording is None:
            return
        try:
            self._waiting.put_nowait((why, box, recording))
        except queue.Full:
            self._log(f"black box: {why} is not recorded, as four recordings wait for the disk")
            return
        if is_fault:
            self._last_fault_s = now_s

    def close(self, seconds: float = 10.0) -> None:
        """Returns when all is written, or the disk has taken too long."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            why, box, recording = item
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
                path = self._folder / f"{self._name}-{stamp}-{why}.mcap"
                box.dump(path, recording)
                self._log(f"black box: {path}")
                self._prune()
            except (IqlRosError, OSError) as error:  # a full disk must not end the controller
                self._log(f"black box: {why} could not be recorded: {error}")

    def _prune(self) -> None:
        # Names hold the time, so their order is that of age.
        for path in sorted(self._folder.glob(f"{self._name}-*.mcap"))[:-KEPT]:
            path.unlink(missing_ok=True)
