"""The tables of the report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from iql_ros.pages.parts import short, table
from training.report.episodes import SECOND_NS


def sources_table(logs: Sequence[Mapping[str, Any]]) -> str:
    """Each log with its hash, its share, what was found while reading it and all its facts."""
    rows = [
        [
            f"{escape(str(log.get('name')))}<br><code>{escape(str(log.get('sha256', '')))}</code>"
            f"{' of samples' if log.get('sha256_of') == 'samples' else ''}"
            f"{_findings(log.get('findings', ()))}{_facts(log.get('facts', {}))}",
            _utc(log.get("start_ns")),
            f"{log.get('steps', 0):,}",
            f"{log['episodes']:,}",
            f"{short(log['used_s'])} s",
            short(log["mean_return"]),
        ]
        for log in logs
    ]
    heads = ["log", "first step, UTC", "steps", "episodes", "used", "mean return"]
    return table(heads, rows, numeric=(1, 2, 3, 4, 5))


def failed_table(failed: Sequence[Mapping[str, Any]]) -> str:
    """Logs that gave nothing, and why."""
    if not failed:
        return ""
    rows = [[escape(str(f["path"])), escape(str(f["reason"]))] for f in failed]
    return "<h2>Failed logs</h2>" + table(["log", "reason"], rows)


def _findings(findings: Sequence[Any]) -> str:
    return "".join(f'<br><span class="flag">{escape(str(finding))}</span>' for finding in findings)


def _facts(facts: Mapping[str, Any]) -> str:
    """Whatever the conversion counted, zeros left out."""
    told = [
        f"{escape(name.replace('_', ' '))} {escape(_value(value))}"
        for name, value in facts.items()
        if value not in (0, None, [], {})
    ]
    return f"<details><summary>counts</summary>{' · '.join(told)}</details>" if told else ""


def _value(value: Any) -> str:
    return short(value) if isinstance(value, float) else str(value)


def _utc(t_ns: int | None) -> str:
    if t_ns is None:
        return "-"
    seconds, rest = divmod(t_ns, SECOND_NS)
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"
