"""Between SI units and what the networks see: observations and actions, both near [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.mapped import parts

# A tanh reaches 1 only at infinity, so targets stay this far inside (as the official IQL does).
UNIT_MARGIN = 1e-5

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Normaliser:
    """Maps observations to zero mean and unit spread: (x - mean) / std.

    Attributes:
        mean, std: (O,) float32.
        constant: the components that never varied; their std is 1, so that a first small
            change on the robot is passed on as it is and not blown up.
    """

    mean: Floats
    std: Floats
    constant: tuple[int, ...] = ()

    @classmethod
    def fit(cls, observations: Floats) -> Normaliser:
        """Returns the normaliser of observations (N, O)."""
        rows = len(observations)
        mean = sum(part.sum(axis=0, dtype=np.float64) for _, part in parts(observations)) / rows
        squares = sum(np.square(part - mean).sum(axis=0) for _, part in parts(observations))
        std = np.sqrt(squares / rows)
        # float32 itself is good to 6e-8 of the value: less spread than 1e-6 of it is rounding.
        constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        std = np.where(constant, 1.0, std)
        where = tuple(int(i) for i in np.flatnonzero(constant))
        return cls(mean.astype(np.float32), std.astype(np.float32), where)

    @classmethod
    def identity(cls, size: int) -> Normaliser:
        """Returns the normaliser that changes nothing."""
        return cls(np.zeros(size, np.float32), np.ones(size, np.float32))

    def __call__(self, observations: Floats) -> Floats:
        """Returns the normalised observations, float32, same shape."""
        return (observations - self.mean) / self.std


def to_unit(actions: Floats, low: NDArray[np.float64], high: NDArray[np.float64]) -> Floats:
    """Returns SI actions (N, A) scaled from [low, high] to [-1, 1], kept off the very ends."""
    unit = 2.0 * (actions - low) / (high - low) - 1.0
    return np.clip(unit, UNIT_MARGIN - 1.0, 1.0 - UNIT_MARGIN).astype(np.float32)
