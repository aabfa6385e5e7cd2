"""Logs what becomes of the ticks, where it changes."""

from __future__ import annotations

import time
from typing import Any

from iql_ros.control.command import Command
from iql_ros.control.status import Status

REPEAT_LOG_S = 1.0


class Changes:
    """Tells a change of status; one that flickers is logged once a second."""

    def __init__(self, log: Any) -> None:
        """Tells `log`, with info and warning."""
        self._log = log
        self._told_s: dict[Status, float] = {}

    def tell(self, before: Command | None, command: Command) -> None:
        """Logs `command` if it acts and the one before did not, or has another reason not to."""
        now = command.status
        had_acted = before is not None and before.status.acts
        has_reason = before is not None and before.status != now and not now.acts
        if now.acts == had_acted and not has_reason:
            return
        now_s = time.monotonic()
        if now_s - self._told_s.get(now, -REPEAT_LOG_S) < REPEAT_LOG_S:
            return
        self._told_s[now] = now_s
        if now.acts:
            self._log.info("acting")
        else:
            self._log.warning(f"fallback, {now.value}: {command.detail}")
