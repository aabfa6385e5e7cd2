"""Plots as SVG text: curves, estimates with their intervals, histograms; coloured by the style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from iql_ros.pages.parts import short

MOST_POINTS = 400
COLOURS = {"": "bar", "other": "look"}
"""Of the first and the second line of a plot."""

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves(series: Series, x_label: str) -> str:
    """One or two lines (xs, ys) by name over one pair of axes.

    The axis spans the middle 96 % of the values, so that a wild beginning does not flatten
    the rest; what lies beyond is drawn at the edge.
    """
    width, height, left, base = 420, 190, 54, 150
    low_x, high_x = _range(np.concatenate([np.asarray(x, float) for x, _ in series.values()]))
    values = np.concatenate([np.asarray(y, float) for _, y in series.values()])
    low, high = _range(np.quantile(values, [0.02, 0.98]))
    paths, names = [], []
    for (name, (xs, ys)), kind in zip(series.items(), COLOURS, strict=False):
        every = -(-len(xs) // MOST_POINTS)
        at_x = left + (width - left - 8) * (np.asarray(xs, float)[::every] - low_x) / (
            high_x - low_x
        )
        share = ((np.asarray(ys, float)[::every] - low) / (high - low)).clip(0, 1)
        at_y = base - 6 - (base - 20) * share
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(at_x, at_y, strict=True))
        paths.append(f'<polyline class="line {kind}" points="{points}"/>')
        colour = COLOURS[kind]
        names.append(f'<tspan style="fill:var(--{colour})">━</tspan> {escape(name)}')
    legend = "".join(
        f'<text x="{left + 130 * i}" y="{height - 2}" class="name">{name}</text>'
        for i, name in enumerate(names)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<path class="axis" fill="none" d="M{left} 6V{base}H{width}"/>{"".join(paths)}'
        f'<text x="{left - 5}" y="18" text-anchor="end">{short(high)}</text>'
        f'<text x="{left - 5}" y="{base - 4}" text-anchor="end">{short(low)}</text>'
        f'<text x="{left}" y="{base + 15}">{low_x:,.0f}</text>'
        f'<text x="{width - 4}" y="{base + 15}" text-anchor="end">{high_x:,.0f}</text>'
        f'<text x="{(left + width) / 2}" y="{base + 15}" text-anchor="middle">{escape(x_label)}'
        f"</text>{legend}</svg>"
    )


def intervals(rows: Sequence[tuple[str, Mapping[str, Any]]], best: int | None = None) -> str:
    """Estimates under each other on one scale: a name, a dot and its 95 % interval.

    Args:
        rows: name, and mean, low and high.
        best: row to mark.
    """
    width, label, row_height = 860, 300, 24
    low, high = _range(np.array([[row["low"], row["high"]] for _, row in rows]))
    height = row_height * len(rows) + 22

    def x(value: float) -> float:
        return label + 10 + (width - label - 80) * (value - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    if low < 0 < high:
        parts.append(f'<path class="axis" d="M{x(0):.1f} 0V{height - 18}"/>')
    for i, (name, row) in enumerate(rows):
        y = row_height * i + 14
        brief = name if len(name) <= 46 else "…" + name[-45:]
        kind = "best" if i == best else "point"
        parts.append(
            f'<text class="name" x="0" y="{y + 4}"><title>{escape(name)}</title>{escape(brief)}'
            f'</text><path class="span" d="M{x(row["low"]):.1f} {y}H{x(row["high"]):.1f}"/>'
            f'<circle class="{kind}" cx="{x(row["mean"]):.1f}" cy="{y}" r="4.5"/>'
            f'<text x="{width - 2}" y="{y + 4}" text-anchor="end">{short(row["mean"])}</text>'
        )
    parts.append(
        f'<text x="{x(low):.1f}" y="{height - 4}">{short(low)}</text>'
        f'<text x="{x(high):.1f}" y="{height - 4}" text-anchor="end">{short(high)}</text></svg>'
    )
    return "".join(parts)


def histogram(facts: Mapping[str, Any], limits: Sequence[float] | None = None) -> str:
    """Bars over a described column, those beyond the limits in another colour.

    Heights are square roots of the counts, so that what is rare shows beside what is frequent.
    """
    width, height, base = 320, 96, 78
    shape = facts["histogram"]
    edges, counts = shape["edges"], shape["counts"]
    low, high = edges[0], edges[-1]
    shown = []
    if limits is not None and limits[1] - limits[0] < 12 * (high - low):
        low, high = min(low, limits[0]), max(high, limits[1])
        shown = list(limits)
    left, span = 6.0, width - 12.0

    def x(value: float) -> float:
        return float(left + span * (value - low) / (high - low))

    tallest = math.sqrt(max(*counts, 1))
    inside: list[str] = []
    beyond: list[str] = []
    for count, start, stop in zip(counts, edges, edges[1:], strict=False):
        if count:
            top = (base - 10) * math.sqrt(count) / tallest
            middle = (start + stop) / 2
            out = limits is not None and not limits[0] <= middle <= limits[1]
            bar_width = max(x(stop) - x(start) - 0.6, 0.8)
            bar = f"M{x(start):.1f} {base}v{-max(top, 1):.1f}h{bar_width:.1f}V{base}z"
            (beyond if out else inside).append(bar)
    lines = "".join(f'<path class="limit" d="M{x(v):.1f} 4V{base}"/>' for v in shown)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<path class="bar" d="{"".join(inside)}"/><path class="beyond" d="{"".join(beyond)}"/>'
        f'{lines}<path class="axis" d="M{left} {base}H{left + span}"/>'
        f'<text x="{left}" y="{height - 4}">{short(low)}{_arrow(shape["below"], "◂")}</text>'
        f'<text x="{left + span}" y="{height - 4}" text-anchor="end">'
        f"{_arrow(shape['above'], '▸')}{short(high)}</text></svg>"
    )


def _arrow(count: int, sign: str) -> str:
    return f" {sign} {count} beyond " if count else ""


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
