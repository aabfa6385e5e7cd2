"""Plots as SVG text: a timeline and a scatter, coloured by the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from iql_ros.pages.parts import short

LABEL_WIDTH, RULER_WIDTH, ROW_HEIGHT = 210, 850, 20
MOST_BARS = 400
"""A row of more episodes is drawn as so many slices, each in the colour that fills most of it."""
MOST_DOTS = 4_000


@dataclass(frozen=True)
class Row:
    """One log on the timeline: a label, its extent, and its episodes as (start, stop, end)."""

    label: str
    extent_s: float
    spans: Sequence[tuple[float, float, str]]


def timeline(rows: Sequence[Row]) -> str:
    """Logs as rows on one scale of seconds since the beginning of each, episodes as bars."""
    longest = max([row.extent_s for row in rows], default=0.0) or 1.0
    height = ROW_HEIGHT * len(rows) + 24
    scale = RULER_WIDTH / longest
    parts = [f'<svg viewBox="0 0 {LABEL_WIDTH + RULER_WIDTH + 20} {height}" role="img">']
    step = _tick(longest)
    for k in range(int(longest / step + 1e-9) + 1):
        at = LABEL_WIDTH + k * step * scale
        text = f"{short(k * step / 60)} min" if step >= 60 else f"{short(k * step)} s"
        parts.append(
            f'<path class="axis" d="M{at:.1f} 0V{height - 20}"/>'
            f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle">{text}</text>'
        )
    for i, row in enumerate(rows):
        y = i * ROW_HEIGHT + 4
        label = row.label if len(row.label) <= 34 else "…" + row.label[-33:]
        parts.append(
            f'<text x="0" y="{y + 10}"><title>{escape(row.label)}</title>{escape(label)}</text>'
            f'<rect class="track" x="{LABEL_WIDTH}" y="{y + 5}" '
            f'width="{row.extent_s * scale:.1f}" height="2"/>'
        )
        spans = row.spans if len(row.spans) <= MOST_BARS else _sliced(row)
        titled = len(rows) * len(spans) <= 2_000
        for start, stop, end in spans:
            at = LABEL_WIDTH + start * scale
            width = max((stop - start) * scale - 0.8, 0.8)
            title = f"<title>{short(start)} to {short(stop)} s: {end}</title>" if titled else ""
            parts.append(
                f'<rect class="{end}" x="{at:.1f}" y="{y}" width="{width:.1f}" height="12" rx="1"'
                + (f">{title}</rect>" if titled else "/>")
            )
    return "".join([*parts, "</svg>"])


def _sliced(row: Row) -> list[tuple[float, float, str]]:
    """Even slices of a row, each with the ending whose episodes fill most of it."""
    size = row.extent_s / MOST_BARS
    filled: list[dict[str, float]] = [{} for _ in range(MOST_BARS)]
    for start, stop, end in row.spans:
        for k in range(int(start / size), min(int(stop / size) + 1, MOST_BARS)):
            share = min(stop, (k + 1) * size) - max(start, k * size)
            filled[k][end] = filled[k].get(end, 0.0) + max(share, 0.0)
    return [
        (k * size, k * size + size, max(ends, key=lambda end: ends[end]))
        for k, ends in enumerate(filled)
        if ends
    ]


def scatter(
    x: Sequence[float], y: Sequence[float], kinds: Sequence[str], x_label: str, y_label: str
) -> str:
    """Dots coloured by kind; of more than `MOST_DOTS`, evenly chosen ones are drawn."""
    width, height, left, base = 520, 200, 46, 166
    low_x, high_x = _range(x)
    low_y, high_y = _range(y)
    every = -(-len(x) // MOST_DOTS)
    paths: dict[str, list[str]] = {}
    for a, b, kind in list(zip(x, y, kinds, strict=True))[::every]:
        at_x = left + 8 + (width - left - 18) * (a - low_x) / (high_x - low_x)
        at_y = base - 8 - (base - 18) * (b - low_y) / (high_y - low_y)
        paths.setdefault(kind, []).append(f"M{at_x:.1f} {at_y:.1f}h0")
    dots = "".join(f'<path class="{kind}" d="{"".join(d)}"/>' for kind, d in paths.items())
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<path class="axis" fill="none" d="M{left} 4V{base}H{width}"/><g class="dots">{dots}</g>'
        f'<text x="{left - 5}" y="16" text-anchor="end">{short(high_y)}</text>'
        f'<text x="{left - 5}" y="{base - 4}" text-anchor="end">{short(low_y)}</text>'
        f'<text x="{left + 4}" y="{base + 15}">{short(low_x)}</text>'
        f'<text x="{width}" y="{base + 15}" text-anchor="end">{short(high_x)}</text>'
        f'<text x="{(left + width) / 2}" y="{base + 28}" text-anchor="middle">{x_label}</text>'
        f'<text x="12" y="{base / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {base / 2})">{y_label}</text></svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _tick(longest: float) -> float:
    """A round step that divides the ruler into at most ten."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200):
        if longest / step <= 10:
            return step
    return 3600.0 * math.ceil(longest / 36_000)
