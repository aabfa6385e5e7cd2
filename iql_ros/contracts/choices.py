"""The values that a discrete action may have, and which of them a number means.

A choice passes through float32 in datasets, networks and many messages, so a number means
the choice it lies nearest to, if that is nearer than any rounding explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

APART = 1e-3
"""Least distance of two choices, as a share of the largest magnitude: ten times what a
backend may be off (`golden.TOLERANCE`), and a thousand times a rounding."""
ROUNDING = 1e-6
"""How far a number may be off, as a share of the largest magnitude; float32 is off by 6e-8."""

Array = NDArray[np.float64]


def check_apart(choices: Sequence[float]) -> None:
    """Raises ValueError if two of the choices could be taken for each other."""
    ordered = sorted(choices)
    largest = max(abs(ordered[0]), abs(ordered[-1]))
    for low, high in pairwise(ordered):
        if high - low < APART * largest:
            raise ValueError(
                f"choices {low} and {high} are nearer than {APART:g} of the largest, "
                f"{largest}: they could not be told apart once rounded; leave one out"
            )


def tolerance(choices: Array) -> float:
    """How far from one of `choices`, (K,), a number may be and still mean it."""
    return ROUNDING * float(np.abs(choices).max())


def nearest_choice(
    values: NDArray[Any], choices: Array
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which choice each value is nearest to, and whether it means that choice.

    Args:
        values: any shape; NaN means none.
        choices: (K,).

    Returns:
        Numbers of choices and flags, both of the shape of `values`.
    """
    distance = np.abs(values.astype(np.float64)[..., None] - choices)
    is_choice: NDArray[np.bool_] = distance.min(axis=-1) <= tolerance(choices)
    return distance.argmin(axis=-1), is_choice
