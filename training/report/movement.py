"""How a signal moves from step to step: where it froze, where it jumped, whether it wraps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.report.numbers import rounded

STILL_STEPS = 10
"""Shorter stretches without a change are left alone."""
LIVELY = 0.8
"""A signal that changes in this share of steps is one whose standstill means something."""
ENDLESS_STEPS = 50
"""A stretch that lasts to the end of its episode must be this long to be no chance."""
CATCH_UP = 4.0
"""A sensor that hung leaps by this many usual changes when it goes on; one at rest does not."""
JUMP = 20.0
"""A jump is this many times the 99 % quantile of the changes, and half the usual range."""
TURN = {"rad": 2 * np.pi, "deg": 360.0}


def frozen(
    values: NDArray[Any], inside: NDArray[np.bool_], commanded: NDArray[np.bool_]
) -> list[dict[str, int] | None]:
    """Stretches in which one signal stood while the others moved and the robot was commanded.

    Rest is no fault: a signal counts only if it changes in most other steps, and if it leaps
    when the stretch ends, having missed what went on meanwhile.

    Args:
        values: signals, shape (N, C).
        inside: whether row i + 1 goes on in the episode of row i, shape (N - 1,).
        commanded: rows in which the action is not the safe one, shape (N,).

    Returns:
        For each signal None, or how many such stretches and steps there are, how long the
        longest is and at which row it begins.
    """
    changed = values[1:] != values[:-1]
    movers = changed.sum(axis=1, dtype=np.int32)
    return [
        _stretches(column, change, inside, inside & (movers > change), commanded[:-1])
        for column, change in zip(values.T, changed.T, strict=True)
    ]


def _stretches(
    values: NDArray[Any],
    changed: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    others: NDArray[np.bool_],
    commanded: NDArray[np.bool_],
) -> dict[str, int] | None:
    still = ~changed & inside
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    start, stop = edges[::2], edges[1::2]
    long = stop - start >= STILL_STEPS
    start, stop = start[long], stop[long]
    alone = _sum(others, start, stop) >= LIVELY * (stop - start)
    driven = _sum(commanded, start, stop) >= 0.5 * (stop - start)
    hung = alone & driven & _hung(values, changed & inside, start, stop)
    start, stop = start[hung], stop[hung]
    if not len(start):
        return None
    moving = int(others.sum()) - int(_sum(others, start, stop).sum())
    standing = int((still & others).sum()) - int(_sum(still & others, start, stop).sum())
    if moving < STILL_STEPS or standing > (1 - LIVELY) * moving:
        return None
    longest = int(np.argmax(stop - start))
    return {
        "stretches": len(start),
        "steps": int((stop - start).sum()),
        "longest": int(stop[longest] - start[longest]),
        "row": int(start[longest]),
    }


def _hung(
    values: NDArray[Any],
    moved: NDArray[np.bool_],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether the signal leaps at the end of each stretch, or the stretch has no end."""
    if not len(start):
        return np.zeros(0, bool)
    change = np.abs(np.diff(values.astype(np.float64)))
    usual = float(np.median(change[moved])) if moved.any() else np.inf
    ends = np.concatenate([moved, [False]])[stop]
    leap = np.concatenate([change, [0.0]])[stop]
    return np.where(ends, leap > CATCH_UP * usual, stop - start >= ENDLESS_STEPS)


def _sum(
    flags: NDArray[np.bool_], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.int64]:
    total = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(total[stop] - total[start])


def jumps(
    before: NDArray[Any], after: NDArray[Any], usual_range: float, unit: str, is_rotation: bool
) -> dict[str, Any] | None:
    """Changes in one step that do not look like motion.

    Args:
        before, after: a signal at the beginning and end of each step, shape (N,).
        usual_range: from its 1 % to its 99 % quantile.
        unit: of an angle, by which a full turn is known.
        is_rotation: a component of a quaternion, whose negative is the same rotation.

    Returns:
        None, or how many jumps there are, the largest, the row of it, and its `kind`: `turn`,
        `flip` (of the sign) or `leap`.
    """
    start = np.ascontiguousarray(before, dtype=np.float64)
    change = np.abs(after - start)
    change[~np.isfinite(change)] = 0.0
    turn = TURN.get(unit)
    largest = float(change.max())
    if turn is not None and 0.9 * turn < largest <= 1.001 * turn:
        return _jump("turn", change, change > 0.9 * turn)
    if is_rotation:
        flips = (np.abs(after + start) < 0.1 * change) & (change > 0.5 * usual_range)
        if flips.any():
            return _jump("flip", change, flips)
    limit = max(JUMP * float(np.quantile(change, 0.99)), 0.5 * usual_range)
    return _jump("leap", change, change > limit) if largest > limit > 0 else None


def _jump(kind: str, change: NDArray[np.float64], at: NDArray[np.bool_]) -> dict[str, Any]:
    row = int(np.argmax(np.where(at, change, 0.0)))
    return {
        "kind": kind,
        "count": int(at.sum()),
        "largest": rounded(float(change[row])),
        "row": row,
    }
