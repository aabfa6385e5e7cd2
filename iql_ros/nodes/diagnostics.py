"""What /diagnostics and the heartbeat say."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from iql_ros.control.status import Status
from iql_ros.controller import Command
from iql_ros.nodes.incumbent import Difference

KEPT = 10_000


class Times:
    """The last `KEPT` times, microseconds.

    Sorting a deque of them kept the interpreter for a millisecond once a second, and a tick that
    fell due then was late; numpy sorts without the interpreter.
    """

    def __init__(self) -> None:
        """None yet."""
        self._times = array("d", bytes(8 * KEPT))
        self._count = 0

    def add(self, us: float) -> None:
        """Keeps one, in place of the oldest."""
        self._times[self._count % KEPT] = us
        self._count += 1

    def percentiles(self) -> dict[str, float]:
        """p50, p95, p99 and the largest, by name; empty if there are none."""
        n = min(self._count, KEPT)
        if not n:
            return {}
        ascending = np.sort(np.frombuffer(self._times)[:n])
        ranks = {f"p{percent}": min(n - 1, n * percent // 100) for percent in (50, 95, 99)}
        return {name: float(ascending[i]) for name, i in {**ranks, "max": n - 1}.items()}


class Account:
    """What has happened since activation: ticks by status, latencies, messages by topic."""

    def __init__(self, aliases: Iterable[str], heard: Iterable[str] = ()) -> None:
        """Nothing has happened, except that topics in `heard` have spoken before."""
        self.ticks = dict.fromkeys(Status, 0)
        self.latency_us = Times()
        self.lateness_us = Times()
        self.policy_us = Times()
        self.received = dict.fromkeys(aliases, 0)
        self._heard_before = frozenset(heard)
        self._counted_s: float | None = None
        self._before = dict(self.received)

    def anew(self) -> Account:
        """Another that begins now."""
        return Account(self.received, set(self.received) - set(self.unheard))

    @property
    def unheard(self) -> tuple[str, ...]:
        """Topics that have not spoken once since configure."""
        return tuple(a for a, n in self.received.items() if not n and a not in self._heard_before)

    def add(self, command: Command) -> None:
        """Counts one decision."""
        self.ticks[command.status] += 1
        if command.proposed is not None:
            self.policy_us.add(command.policy_s * 1e6)

    def rates_hz(self, now_s: float) -> dict[str, float]:
        """Messages per second of each topic since the last call."""
        before, self._before = self._before, dict(self.received)
        since_s, self._counted_s = self._counted_s, now_s
        if since_s is None or now_s <= since_s:
            return {}
        return {a: (n - before[a]) / (now_s - since_s) for a, n in self.received.items()}


def loop_values(account: Account, late: int, collector_us: float) -> dict[str, object]:
    """Percentiles of the loop's times, microseconds."""
    values: dict[str, object] = {}
    measured = {
        "latency_us": account.latency_us,
        "lateness_us": account.lateness_us,
        "policy_us": account.policy_us,
    }
    for name, times in measured.items():
        values |= {f"{name} {p}": round(us, 1) for p, us in times.percentiles().items()}
    values["late ticks"] = late
    values["garbage collection max us"] = round(collector_us, 1)
    return values


def difference_values(differences: Iterable[Difference]) -> dict[str, object]:
    """Shadow against incumbent, one line for each action component."""
    return {
        f"difference {d.name}": f"rms {d.rms:.4g}, bias {d.bias:.4g}, largest {d.largest:.4g} "
        f"in {d.count} ticks"
        for d in differences
    }


def level_of(*, is_active: bool, status: Status) -> bytes:
    """OK while it acts or is not meant to; ERROR for an emergency stop; otherwise WARN."""
    if status is Status.HALTED:
        return bytes(DiagnosticStatus.ERROR)
    acts = not is_active or status.acts
    return bytes(DiagnosticStatus.OK if acts else DiagnosticStatus.WARN)


def status_message(
    node: str, component: str, level: bytes, text: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """One entry, named as REP 107 asks; `node` has its namespace, as there may be several."""
    return DiagnosticStatus(
        level=level,
        name=f"{node.lstrip('/')}: {component}",
        message=text,
        hardware_id="",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
