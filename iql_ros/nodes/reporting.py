"""Tells how the loop is: /diagnostics once a second, the heartbeat ten times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from iql_ros.nodes.diagnostics import (
    difference_values,
    level_of,
    loop_values,
    status_message,
)
from iql_ros.nodes.loop import Loop
from iql_ros.nodes.waiting import strangers
from iql_ros.sampler import SECOND_NS, max_age_ns

SILENT_S = 0.5
"""Beyond its period, a loop that has not ticked for so long is said to stand still."""


class Reporter:
    """Makes the messages about one loop."""

    def __init__(self, node: Any, loop: Loop, problems: Mapping[str, str]) -> None:
        """Reports on `loop`; `problems` names topics whose two ends do not fit."""
        self._node, self._loop, self._problems = node, loop, problems
        self._name = node.get_fully_qualified_name()
        contract = loop.contract
        self._period_s = 1 / contract.tick.rate_hz if contract.tick.rate_hz is not None else None

    def heartbeat(self) -> DiagnosticStatus:
        """The state in one entry, without values."""
        level, text = self._state()
        return status_message(self._name, "heartbeat", level, text, {})

    def report(self, late: int) -> DiagnosticArray:
        """All there is to know: policy, gate, inputs, loop, outputs."""
        loop, account = self._loop, self._loop.account
        level, text = self._state()
        latest, bundle, opened = loop.latest, loop.loaded.bundle, loop.loaded.opened
        values: dict[str, Any] = {
            "active": loop.active,
            "status": "" if latest is None else latest.status.value,
            "speed": loop.speed,
            "emergency stop": loop.halted or "",
            "bundle": bundle.digest,
            "bundle folder": bundle.path,
            "previous bundle": "" if loop.previous is None else loop.previous.bundle.digest,
            "backend": opened.backend,
        }
        if loop.recorder is not None:
            values["recorder"] = loop.recorder.state
        if latest is not None and latest.distance is not None:
            values["distance from the training data"] = f"{latest.distance:.3g}"
        values |= {f"ticks {status.value}": count for status, count in account.ticks.items()}
        if loop.incumbent is not None:
            values |= difference_values(loop.incumbent.differences)
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [
            status_message(self._name, "policy", level, text, values),
            self._gate(),
            self._inputs(),
            status_message(
                self._name,
                "loop",
                bytes(DiagnosticStatus.OK),
                f"{late} late ticks",
                loop_values(account, late, loop.collector.longest_us),
            ),
            self._outputs(),
        ]
        return message

    def _state(self) -> tuple[bytes, str]:
        loop, latest = self._loop, self._loop.latest
        if loop.halted is not None:
            return bytes(DiagnosticStatus.ERROR), f"emergency stop: {loop.halted}"
        if not loop.active:
            return bytes(DiagnosticStatus.OK), "not active"
        if latest is None and not loop.is_ticking and not loop.may_begin():
            unheard = [loop.contract.topics[alias].absolute for alias in loop.account.unheard]
            if unheard:
                return bytes(
                    DiagnosticStatus.WARN
                ), f"nothing heard yet: is {', '.join(unheard)} publishing?"
            return bytes(DiagnosticStatus.OK), "listens for a latched stop before it begins"
        if latest is None:
            return bytes(DiagnosticStatus.WARN), f"no tick yet{self._question()}"
        silent_s = time.monotonic() - loop.ticked_s
        if self._period_s is not None and silent_s > self._period_s + SILENT_S:
            return bytes(DiagnosticStatus.ERROR), f"no tick for {silent_s:.1f} s"
        text = latest.status.value if latest.status.acts else latest.detail
        return level_of(is_active=True, status=latest.status), text

    def _gate(self) -> DiagnosticStatus:
        permission = self._loop.loaded.permission
        is_settled = permission.refusal is None and permission.warning is None
        level = DiagnosticStatus.OK if is_settled else DiagnosticStatus.WARN
        return status_message(self._name, "gate", bytes(level), permission.gate, {})

    def _question(self) -> str:
        trigger = self._loop.contract.tick.trigger
        if trigger is None:
            return ""
        return f": is {self._loop.contract.topics[trigger].absolute} publishing?"

    def _inputs(self) -> DiagnosticStatus:
        loop, contract = self._loop, self._loop.contract
        values: dict[str, Any] = {}
        ages_s = {} if loop.latest is None else loop.latest.ages_s
        rates_hz = loop.account.rates_hz(time.monotonic())
        for alias in contract.subscriptions:
            if alias in ages_s:
                values[f"age_s {alias}"] = round(ages_s[alias], 4)
            if alias in rates_hz:
                values[f"rate_hz {alias}"] = round(rates_hz[alias], 1)
            if contract.topics[alias].max_age_s is not None:
                values[f"max_age_s {alias}"] = max_age_ns(contract, alias) / SECOND_NS
        topics = [contract.topics[alias] for alias in contract.subscriptions]
        found = [text for topic in topics for text in strangers(self._node, topic)]
        problems = [*self._problems.values(), *found]
        level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
        text = "; ".join(problems)
        return status_message(self._name, "topics", bytes(level), text or "all fit", values)

    def _outputs(self) -> DiagnosticStatus:
        """Two nodes that command one robot are an accident that has not happened yet."""
        contract = self._loop.contract
        names = {
            a: self._node.resolve_topic_name(contract.topics[a].topic) for a in contract.outputs
        }
        counts = {name: self._node.count_publishers(name) for name in names.values()}
        is_shadow = self._loop.incumbent is not None
        crowded = [name for name, count in counts.items() if count > 1 and not is_shadow]
        text = "; ".join(
            f"{name} has {counts[name]} publishers: only one may command" for name in crowded
        )
        level = DiagnosticStatus.ERROR if crowded else DiagnosticStatus.OK
        values = {f"publishers {name}": count for name, count in counts.items()}
        return status_message(self._name, "commands", bytes(level), text or "alone", values)
