"""Plots of a gate's report as SVG text: rates against their bounds, and many runs as strands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from iql_ros.pages.parts import short

MOST_POINTS = 160
"""Of one strand."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval and the bound that its worse end has to keep."""

    name: str
    rate: float
    low: float
    high: float
    bound: float
    passed: bool
    text: str


def rates(rows: Sequence[Rate]) -> str:
    """Shares under each other on the scale 0 to 1; a dashed tick is the bound."""
    width, label, row_height = 860, 230, 24
    height = row_height * len(rows) + 22

    def x(share: float) -> float:
        return label + 10 + (width - label - 130) * share

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = "end" if share == 1 else "start" if share == 0 else "middle"
        parts.append(
            f'<path class="axis" d="M{x(share):.1f} 0V{height - 18}"/>'
            f'<text x="{x(share):.1f}" y="{height - 4}" text-anchor="{anchor}">{share:.0%}</text>'
        )
    for i, row in enumerate(rows):
        y = row_height * i + 14
        brief = row.name if len(row.name) <= 36 else row.name[:35] + "…"
        kind = "holds" if row.passed else "breaks"
        parts.append(
            f'<text class="name" x="0" y="{y + 4}"><title>{escape(row.name)}</title>{escape(brief)}'
            f'</text><path class="span {kind}" d="M{x(row.low):.1f} {y}H{x(row.high):.1f}"/>'
            f'<circle class="{kind}" cx="{x(row.rate):.1f}" cy="{y}" r="4"/>'
            f'<path class="limit" d="M{x(row.bound):.1f} {y - 9}V{y + 9}"/>'
            f'<text x="{width - 2}" y="{y + 4}" text-anchor="end">{escape(row.text)}</text>'
        )
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Strand:
    """One run: times in seconds, values, and how it is drawn: usual, failed or worst."""

    t_s: Sequence[float]
    values: Sequence[float]
    kind: str


def strands(lines: Sequence[Strand], limits: tuple[float, float] | None = None) -> str:
    """Runs over each other; the worst drawn last, the contract's limits dashed."""
    width, height, left, base = 420, 178, 54, 150
    values = np.concatenate([np.asarray(line.values, float) for line in lines])
    values = values[np.isfinite(values)]
    low, high = _range(values)
    shown = []
    if limits is not None and limits[1] - limits[0] < 4 * (high - low):
        low, high = min(low, limits[0]), max(high, limits[1])
        shown = list(limits)
    longest = max(float(line.t_s[-1]) for line in lines) or 1.0

    def y(value: np.ndarray | float) -> np.ndarray | float:
        return base - 6 - (base - 18) * (value - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<path class="axis" fill="none" d="M{left} 6V{base}H{width}"/>'
    ]
    for value in shown:
        parts.append(f'<path class="limit" d="M{left} {y(value):.1f}H{width}"/>')
    for kind in ("usual", "failed", "worst"):
        for line in (line for line in lines if line.kind == kind):
            every = -(-len(line.t_s) // MOST_POINTS)
            at_x = left + (width - left - 6) * np.asarray(line.t_s, float)[::every] / longest
            at_y = y(np.nan_to_num(np.asarray(line.values, float)[::every], nan=low))
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(at_x, at_y, strict=True))  # type: ignore[arg-type]
            parts.append(f'<polyline class="strand {kind}" points="{points}"/>')
    parts.append(
        f'<text x="{left - 5}" y="18" text-anchor="end">{short(high)}</text>'
        f'<text x="{left - 5}" y="{base - 4}" text-anchor="end">{short(low)}</text>'
        f'<text x="{left}" y="{base + 15}">0 s</text>'
        f'<text x="{width - 4}" y="{base + 15}" text-anchor="end">{short(longest)} s</text></svg>'
    )
    return "".join(parts)


def _range(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return -0.5, 0.5
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
