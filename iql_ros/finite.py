"""Whether values are finite, for the few values of one tick.

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
