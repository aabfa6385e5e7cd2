"""Over- and underfitting from the course of training (Kumar et al., 2021, arXiv 2109.10813).

"A Workflow for Offline Model-Free Robotic Reinforcement Learning" reads two signs without a
robot: values on the data that rise and then fall tell of overfitting, a temporal-difference
error that stays high tells of underfitting. Beside them the plain sign of supervised
learning: a held-out loss that rises while the training loss still falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RISE = 0.1
"""A rise or fall counts from this share of the curve's range."""
SETTLED_BY = 0.8
"""A best point in the last fifth of the training is no turning point."""
TAIL = 0.2
"""The last part of the training, in which values should have come to rest."""
FEWEST = 5
"""Fewer points tell nothing."""
TD_SHARE = 0.5
"""A temporal-difference error of more than this share of the values' spread is high."""


@dataclass(frozen=True)
class Curve:
    """One quantity over training: steps and values, (K,) each."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Sign:
    """One thing that the curves say.

    Attributes:
        word: overfits, underfits, unsettled, or too short.
        text: a sentence with its numbers.
    """

    word: str
    text: str


def read_curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """The curves of `metrics.jsonl`, by name such as `held_out/actor_loss`."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step":
                points.setdefault(name, []).append((line["step"], float(value)))
    return {
        name: Curve(np.array([p[0] for p in of]), np.array([p[1] for p in of]))
        for name, of in points.items()
    }


def signs(curves: Mapping[str, Curve], spread: float | None = None) -> list[Sign]:
    """What the curves of a run say; empty where they say nothing is amiss.

    Args:
        curves: by name, see `read_curves`.
        spread: standard deviation of the recorded returns to go, in the training's units; None
            where values were not learnt.
    """
    held_out = curves.get("held_out/actor_loss")
    if held_out is None or len(held_out.steps) < FEWEST:
        count = 0 if held_out is None else len(held_out.steps)
        return [
            Sign("too short", f"{count} held-out points, {FEWEST} are needed to see a trend: train "
                 f"longer, or lower evaluate_every")
        ]  # fmt: skip
    found = [_actor(curves["train/actor_loss"], held_out)]
    if "held_out/value" in curves:
        found.append(_values(curves["held_out/value"]))
    if "held_out/critic_loss" in curves and spread is not None:
        found.append(_critic(curves["train/critic_loss"], curves["held_out/critic_loss"], spread))
    return [sign for sign in found if sign is not None]


def gap(curves: Mapping[str, Curve], loss: str) -> tuple[float, float] | None:
    """The newest training and held-out value of a loss, or None."""
    ours, theirs = curves.get(f"train/{loss}"), curves.get(f"held_out/{loss}")
    if ours is None or theirs is None:
        return None
    last = max(1, len(ours.values) // 20)  # one batch's loss is noisy, a twentieth's mean is not
    return float(ours.values[-last:].mean()), float(theirs.values[-1])


def _actor(train: Curve, held_out: Curve) -> Sign | None:
    values = held_out.values
    best = int(np.argmin(values))
    risen, fallen = values[-1] - values[best], values[0] - values[best]
    turned = held_out.steps[best] <= SETTLED_BY * held_out.steps[-1]
    if (
        turned
        and risen > RISE * max(fallen, 1e-12)
        and _mean_of_last(train, TAIL) < np.interp(held_out.steps[best], train.steps, train.values)
    ):
        return Sign(
            "overfits",
            f"the held-out actor loss was least at step {held_out.steps[best]} ({values[best]:.4g})"
            f" and is {values[-1]:.4g} now, while the training loss went on falling: train fewer "
            f"steps or a smaller network, or add data",
        )
    moved = values[int(len(values) * (1 - TAIL)) - 1] - values[-1]
    if moved > RISE * max(fallen, 1e-12):
        return Sign(
            "underfits",
            f"the held-out actor loss still fell by {moved:.4g} in the last fifth of the training, "
            f"of {fallen:.4g} in all: train longer",
        )
    return None


def _values(value: Curve) -> Sign | None:
    values = value.values
    span = max(float(np.ptp(values)), 1e-12)
    peak = int(np.argmax(values))
    if (
        value.steps[peak] <= SETTLED_BY * value.steps[-1]
        and values[peak] - values[-1] > RISE * span
    ):
        return Sign(
            "overfits",
            f"mean V on held-out states rose to {values[peak]:.4g} at step {value.steps[peak]} and "
            f"has fallen to {values[-1]:.4g}: in Kumar et al. the better policy is the one from "
            f"about the peak",
        )
    moved = abs(values[-1] - values[int(len(values) * (1 - TAIL)) - 1])
    if moved > RISE * span:
        return Sign(
            "unsettled",
            f"mean V on held-out states still moved by {moved:.4g} in the last fifth of the "
            f"training, of {span:.4g} in all: train longer",
        )
    return None


def _critic(train: Curve, held_out: Curve, spread: float) -> Sign | None:
    # The loss is the sum over two critics.
    error = float(np.sqrt(_mean_of_last(train, TAIL) / 2))
    if error > TD_SHARE * spread:
        return Sign(
            "underfits",
            f"the temporal-difference error is {error:.4g}, {error / spread:.0%} of the spread of "
            f"the recorded returns ({spread:.4g}): a larger network, or rewards that are noise",
        )
    unseen = float(np.sqrt(held_out.values[-1] / 2))
    if unseen > 2 * error and unseen > RISE * spread:
        return Sign(
            "overfits",
            f"the temporal-difference error is {unseen:.4g} on held-out steps, {error:.4g} in "
            f"training: add data, or a smaller network",
        )
    return None


def _mean_of_last(curve: Curve, share: float) -> float:
    return float(curve.values[-max(1, int(len(curve.values) * share)) :].mean())
