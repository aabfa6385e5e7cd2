"""The report's figures over many episodes: trajectories and distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from iql_ros.pages.parts import short, table
from iql_ros.pages.plots import histogram, intervals
from sim.report_plots import Strand, strands

Facts = Mapping[str, Any]
BINS = 24


def trajectories(facts: Facts) -> str:
    """What the task looks at and what was commanded, over time, all episodes over each other."""
    lines, usual = facts["strands"], facts["usual"]["scenario"]
    if not lines:
        return ""
    worst = facts["worst"][0] if facts["worst"] else None

    def kind(line: Facts) -> str:
        is_worst = worst is not None and (line["scenario"], line["episode"]) == (
            worst["scenario"],
            worst["episode"],
        )
        return "worst" if is_worst else "usual" if line["success"] else "failed"

    def drawn(times: str, group: str, name: str, limits: tuple[float, float] | None) -> str:
        given = [
            Strand(line[times], [np.nan if v is None else v for v in line[group][name]], kind(line))
            for line in lines
            if line[times] and name in line[group]
        ]
        body = strands(given, limits) if given else "no values"
        return f"<figure><header><b>{escape(name)}</b></header>{body}</figure>"

    first = lines[0]
    figures = [drawn("t_s", "task", name, None) for name in first["task"]]
    figures += [
        drawn("action_t_s", "actions", name, tuple(facts["limits"][name]))
        for name in first["actions"]
    ]
    legend = (
        '<div class="legend"><span><i style="background:var(--bar)"></i>succeeded</span>'
        '<span><i style="background:var(--look)"></i>did not</span>'
        + (
            f'<span><i style="background:var(--beyond)"></i>the worst: '
            f"{escape(worst['scenario'])}, episode {worst['episode']}</span>"
            if worst
            else ""
        )
        + "</div>"
    )
    count = sum(line["scenario"] == usual for line in lines)
    return (
        f'<h2>Trajectories</h2><p class="note">The first {count} episodes of '
        f" {escape(usual)}, and the worst of all. What the task looks at, then the "
        f"commands with their limits (dashed).</p>{legend}"
        f'<div class="triple">{"".join(figures)}</div>'
    )


def distributions(facts: Facts) -> str:
    """Returns, durations and interventions over episodes, and what became of the ticks."""
    usual = next(s for s in facts["scenarios"] if s["name"] == facts["usual"]["scenario"])
    others = [e for s in facts["scenarios"] for e in s["episodes"] if s is not usual]
    figures = []
    for key, what, unit in (
        ("return", "return", ""),
        ("duration_s", "duration", "s"),
        ("interventions", "interventions, share of ticks", ""),
    ):
        figures.append(_histogram(f"{what}, {usual['name']}", unit, usual["episodes"], key))
        if others:
            figures.append(_histogram(f"{what}, all other scenarios", unit, others, key))
    rows = []
    for scenario in facts["scenarios"]:
        returns = np.array([e["return"] for e in scenario["episodes"]])
        low, middle, high = np.quantile(returns, [0.05, 0.5, 0.95]).tolist()
        rows.append((scenario["name"], {"low": low, "mean": middle, "high": high}))
    return (
        '<h2>Distributions</h2><div class="grid">'
        + "".join(figures)
        + '</div><p class="note">Return of each scenario: median, and from the 5th to the 95th '
        f"percentile of its episodes.</p><figure>{intervals(rows)}</figure>"
        '<p class="note">What became of the ticks: ok is the policy\'s action as it was; others '
        "changed or replaced it (docs/safety.md). Times are those of a tick, in this run, on the "
        "machine that ran it.</p>" + _statuses(facts)
    )


def _histogram(name: str, unit: str, episodes: Sequence[Facts], key: str) -> str:
    values = np.array([episode[key] for episode in episodes], float)
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    span = (low, high) if high > low else (low - 0.5, high + 0.5)
    counts, edges = np.histogram(values, BINS, span)
    shape = {"edges": edges.tolist(), "counts": counts.tolist(), "below": 0, "above": 0}
    return (
        f'<figure><header><b>{escape(name)}</b><span class="soft">{escape(unit)}</span></header>'
        f"{histogram({'histogram': shape})}<figcaption>median {short(float(np.median(values)))} · "
        f"{len(values):,} episodes</figcaption></figure>"
    )


def _statuses(facts: Facts) -> str:
    counted: dict[str, Counter[str]] = {}
    for scenario in facts["scenarios"]:
        total = counted.setdefault(scenario["name"], Counter())
        for episode in scenario["episodes"]:
            total.update(episode["statuses"])
    seen = [s for s, _ in sum(counted.values(), Counter()).most_common()]
    rows = []
    for scenario in facts["scenarios"]:
        total, took = counted[scenario["name"]], scenario["tick_us"]
        ticks = max(1, sum(total.values()))
        rows.append(
            [
                escape(scenario["name"]),
                *(f"{100 * total[s] / ticks:.1f} %" if total[s] else "" for s in seen),
                f"{took['p50']:.0f} / {took['p99']:.0f}" if took else "-",
            ]
        )
    heads = ["scenario", *map(escape, seen), "tick, us, p50 / p99"]
    return table(heads, rows, numeric=range(1, len(heads)))
