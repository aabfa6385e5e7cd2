"""The noise of a policy that draws its actions, as a function of a seed and the observation.

So a policy that draws is a function of the observation as any other: golden pairs prove it,
a recording replays to the bit, all backends draw alike, and no count of ticks has to be kept.
In return the same observation, to the bit, gives the same action.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.format import Noise

_WORD = 2.0**-32


@final
class NoiseSource:
    """Standard normal numbers for one observation after another.

    SHAKE-128 of seed and observation gives as many bits as are wanted, on every machine the
    same; Box and Muller's transform makes normal numbers of them.
    """

    def __init__(self, noise: Noise, out: NDArray[np.float32]) -> None:
        """Readies the buffers.

        Args:
            noise: seed and size.
            out: where `draw` writes, (1, K) float32.
        """
        pairs = (noise.shape[1] + 1) // 2
        self._seeded = hashlib.shake_128(noise.seed.to_bytes(8, "little"))
        self._bytes = 8 * pairs
        self._uniform = np.zeros((2, pairs))
        self._radius, self._angle = self._uniform
        self._normal = np.zeros((2, pairs))
        self._drawn = self._normal.reshape(-1)[: noise.shape[1]]
        self._out = out[0]

    def draw(self, observation: NDArray[np.float32]) -> None:
        """Writes the numbers for an observation, float32 and contiguous."""
        stream = self._seeded.copy()
        stream.update(observation.tobytes())
        words = np.frombuffer(stream.digest(self._bytes), "<u4").reshape(self._uniform.shape)
        # Off the ends of (0, 1): no number is farther out than 6.8.
        np.add(words, 0.5, out=self._uniform)
        np.multiply(self._uniform, _WORD, out=self._uniform)
        radius, angle = self._radius, self._angle
        np.log(radius, out=radius)
        np.multiply(radius, -2.0, out=radius)
        np.sqrt(radius, out=radius)
        np.multiply(angle, 2.0 * math.pi, out=angle)
        np.cos(angle, out=self._normal[0])
        np.sin(angle, out=self._normal[1])
        np.multiply(self._normal, radius, out=self._normal)
        self._out[:] = self._drawn


def noise_rows(noise: Noise, observations: NDArray[Any]) -> NDArray[np.float32]:
    """The noise of each of the observations (G, O), shape (G, K)."""
    out = np.zeros((1, noise.shape[1]), np.float32)
    source = NoiseSource(noise, out)
    rows = []
    for observation in np.ascontiguousarray(observations, np.float32):
        source.draw(observation)
        rows.append(out[0].copy())
    return np.array(rows, np.float32).reshape(-1, noise.shape[1])
