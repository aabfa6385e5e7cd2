"""Whether values are finite, and the like, for the few values of one tick.

numpy's `isfinite(x).all()` goes through three layers of functions. Where a tick comes after a
sleep the caches are cold, and that took 52 µs against 12 µs for this (12 values, 500 Hz).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 64


def is_finite(values: NDArray[Any]) -> bool:
    """Whether no value of an array, shape (N,), is NaN or infinite."""
    if values.size > FEW:
        return bool(np.isfinite(values).all())
    return all(map(math.isfinite, values.tolist()))


def any_of(flags: NDArray[np.bool_]) -> bool:
    """Whether any of a few flags, shape (N,), is set."""
    return True in flags.tolist()


def fits_float32(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows (N, F) are finite in float32, as datasets and policies have them; shape (N,)."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(values.astype(np.float32))
    return np.logical_and.reduce(is_finite, axis=1)  # type: ignore[no-any-return]
