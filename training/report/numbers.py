"""Numbers as JSON can hold them, and the description of one column of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"1%": 0.01, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "99%": 0.99}
BINS = 40
OUTLIER_SPAN = 10.0
"""A range this many times that of the middle 98 % is cut, or its histogram is a single bar."""


def plain(value: Any) -> Any:
    """The same content in the types of JSON: no tuples, numpy scalars, NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.as_posix() if isinstance(value, Path) else str(value)


def rounded(value: float) -> float | None:
    """Nine significant digits, all that a float32 has; None for NaN and infinity."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def describe(values: NDArray[Any]) -> dict[str, Any]:
    """Exact distribution of one column, from one sort of it.

    Args:
        values: shape (N,).

    Returns:
        `missing` counts NaN and infinity and the rest is about what remains: min, max, mean, std,
        quantiles, `distinct` values, `at_min` and `at_max` (how many equal the extreme), histogram.
        With nothing left, `missing` alone.
    """
    ordered = np.sort(values[np.isfinite(values)])
    facts: dict[str, Any] = {"missing": len(values) - len(ordered)}
    if not len(ordered):
        return facts
    at = np.round(np.array([*QUANTILES.values()]) * (len(ordered) - 1)).astype(int)
    low, high = ordered[0], ordered[-1]
    return {
        **facts,
        "min": rounded(low),
        "max": rounded(high),
        "mean": rounded(ordered.mean(dtype=np.float64)),
        "std": rounded(ordered.std(dtype=np.float64)),
        "quantiles": dict(zip(QUANTILES, map(rounded, ordered[at]), strict=True)),
        "distinct": 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])),
        "at_min": int(np.searchsorted(ordered, low, side="right")),
        "at_max": len(ordered) - int(np.searchsorted(ordered, high, side="left")),
        "histogram": _histogram(ordered.astype(np.float64)),
    }


def _histogram(ordered: NDArray[np.float64]) -> dict[str, Any]:
    """Counts between even edges; `below` and `above` are values beyond them, shape of edges (B+1,).

    Args:
        ordered: ascending, at least one.
    """
    low, high = float(ordered[0]), float(ordered[-1])
    inner_low, inner_high = ordered[[len(ordered) // 100, -1 - len(ordered) // 100]]
    inner = float(inner_high - inner_low)
    if inner > 0 and high - low > OUTLIER_SPAN * inner:
        low, high = max(low, inner_low - inner), min(high, inner_high + inner)
    if low == high:
        half = max(abs(low) * 1e-3, 1e-3)
        low, high = low - half, high + half
    edges = np.linspace(low, high, BINS + 1)
    at = np.searchsorted(ordered, edges, side="left")
    at[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return {
        "edges": [rounded(edge) for edge in edges],
        "counts": np.diff(at).tolist(),
        "below": int(at[0]),
        "above": int(len(ordered) - at[-1]),
    }
