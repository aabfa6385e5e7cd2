"""Derived fields: pure functions from arrays (N, width) of operands to one (N, F) array.

A row gives the same bits alone and in a whole log, so that the policy sees on
the robot what it was trained on. For sums, products and roots IEEE 754 settles
every bit. For sine and arc tangent numpy picks among approximations by the
processor and the array, so those are taken from the module math, one by one.

A quaternion is (x, y, z, w), of any length but 0; q and -q give the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import ContractError

Array = NDArray[np.float64]
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """One way to derive a field.

    Attributes:
        compute: From operands (N, width) to the field (N, F).
        widths: The width of each operand; None is any, the same for all that say None.
        labels: From the labels of each operand to those of the field.
    """

    compute: Callable[..., Array]
    widths: tuple[int | None, ...]
    labels: Callable[[Sequence[Labels]], Labels]

    def __call__(self, *operands: Array) -> Array:
        """Returns the field, shape (N, F), of operands of shape (N, width) each."""
        # An infinity or a quaternion of zeros gives NaN, on which the contract's rule acts.
        with np.errstate(all="ignore"):
            values = self.compute(*operands)
        values.flags.writeable = False
        return values

    def check(self, name: str, widths: Sequence[int]) -> None:
        """Checks that operands of `widths` components can make the field `name`.

        Raises:
            ContractError: there are more or fewer operands, or one is of another width.
        """
        if len(widths) != len(self.widths):
            raise ContractError(
                f"field {name!r} derives from {len(widths)} operands, it takes {len(self.widths)}"
            )
        for number, (have, need) in enumerate(zip(widths, self.widths, strict=True), 1):
            if need is not None and have != need:
                raise ContractError(
                    f"field {name!r}: operand {number} has {have} components, it must have {need}"
                )
        free = [have for have, need in zip(widths, self.widths, strict=True) if need is None]
        if len(set(free)) > 1:
            raise ContractError(
                f"field {name!r}: its operands have {' and '.join(map(str, free))} components, "
                "they must have equally many"
            )


def sin(angle: Array) -> Array:
    """Returns the sine of angles in rad, shape (N, F)."""
    return _each(math.sin, _finite(angle))


def cos(angle: Array) -> Array:
    """Returns the cosine of angles in rad, shape (N, F)."""
    return _each(math.cos, _finite(angle))


def sincos(angle: Array) -> Array:
    """Returns the sines, then the cosines, of angles in rad, shape (N, 2 F)."""
    return np.concatenate([sin(angle), cos(angle)], axis=1)


def yaw(quaternion: Array) -> Array:
    """Returns the heading in rad in [-pi, pi], shape (N, 1): the turn about z in Rz Ry Rx."""
    x, y, z, w = quaternion.T
    across, along = 2 * (w * z + x * y), w * w + x * x - y * y - z * z
    heading = _each(math.atan2, across, along)
    heading[(across == 0) & (along == 0)] = np.nan  # looking straight up, or no quaternion
    return heading[:, None]


def rot6d(quaternion: Array) -> Array:
    """Returns the first two columns of the rotation matrix, shape (N, 6).

    Zhou et al., On the Continuity of Rotation Representations, CVPR 2019: no
    jump anywhere, unlike angles and quaternions.
    """
    x_axis, y_axis, _ = _axes(quaternion)
    return np.stack([*x_axis, *y_axis], axis=1)


def rotate_inverse(vector: Array, quaternion: Array) -> Array:
    """Returns a world vector as the body turned by `quaternion` sees it, shape (N, 3)."""
    a, b, c = vector.T
    return np.stack([x * a + y * b + z * c for x, y, z in _axes(quaternion)], axis=1)


def difference(a: Array, b: Array) -> Array:
    """Returns a - b, shape (N, F)."""
    return a - b


def angle_difference(a: Array, b: Array) -> Array:
    """Returns a - b in rad, wrapped to [-pi, pi), shape (N, F)."""
    wrapped = np.mod(a - b + np.pi, 2 * np.pi) - np.pi
    # Just below a whole turn, mod may round up to it.
    return np.where(wrapped >= np.pi, -np.pi, wrapped)


def reciprocal(value: Array) -> Array:
    """Returns 1 / value, shape (N, F): of a range the nearness, 0 for one beyond all bounds."""
    return 1.0 / value


def norm(vector: Array) -> Array:
    """Returns the Euclidean length, shape (N, 1)."""
    first, *others = (vector * vector).T
    # Column by column: how numpy orders a sum along rows depends on their number.
    length: Array = np.sqrt(sum(others, first))
    return length[:, None]


def _axes(quaternion: Array) -> tuple[tuple[Array, Array, Array], ...]:
    """Returns the columns of the rotation matrix, each three arrays (N,)."""
    x, y, z, w = quaternion.T
    s = 2 / (x * x + y * y + z * z + w * w)
    return (
        (1 - s * (y * y + z * z), s * (x * y + w * z), s * (x * z - w * y)),
        (s * (x * y - w * z), 1 - s * (x * x + z * z), s * (y * z + w * x)),
        (s * (x * z + w * y), s * (y * z - w * x), 1 - s * (x * x + y * y)),
    )


def _each(function: Callable[..., float], *operands: Array) -> Array:
    columns = (operand.ravel().tolist() for operand in operands)
    values = np.fromiter(map(function, *columns), np.float64, operands[0].size)
    return values.reshape(operands[0].shape)


def _finite(values: Array) -> Array:
    """Returns values with NaN for infinities, whose sine math refuses."""
    return np.where(np.isinf(values), np.nan, values)


def _same(operands: Sequence[Labels]) -> Labels:
    return operands[0]


def _one(operands: Sequence[Labels]) -> Labels:
    return ("",)


def _sine_then_cosine(operands: Sequence[Labels]) -> Labels:
    return tuple(
        f"{name}_{label}" if label else name for name in ("sin", "cos") for label in operands[0]
    )


def _two_axes(operands: Sequence[Labels]) -> Labels:
    return ("x_x", "x_y", "x_z", "y_x", "y_y", "y_z")


FEATURES: Mapping[str, Feature] = {
    "sin": Feature(sin, (None,), _same),
    "cos": Feature(cos, (None,), _same),
    "sincos": Feature(sincos, (None,), _sine_then_cosine),
    "yaw": Feature(yaw, (4,), _one),
    "rot6d": Feature(rot6d, (4,), _two_axes),
    "rotate_inverse": Feature(rotate_inverse, (3, 4), _same),
    "difference": Feature(difference, (None, None), _same),
    "angle_difference": Feature(angle_difference, (None, None), _same),
    "reciprocal": Feature(reciprocal, (None,), _same),
    "norm": Feature(norm, (None,), _one),
}
