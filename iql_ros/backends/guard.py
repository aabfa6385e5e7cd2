"""What every backend does first: check the graph's signature, refuse what is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundle import Bundle
from iql_ros.bundles.format import POLICY_FILE, graph_metadata, io_of
from iql_ros.bundles.noise import NoiseSource
from iql_ros.errors import BundleError

FLOAT32 = np.dtype(np.float32)

Signature = Sequence[tuple[str, str, tuple[Any, ...]]]
"""Name, element type as ONNX writes it ("tensor(float)"), and shape of each tensor."""


def inputs_of(bundle: Bundle) -> dict[str, tuple[int, int]]:
    """The shape of each of the graph's inputs, by name."""
    io = bundle.manifest.io
    shapes = {io.input.name: io.input.shape}
    if io.noise is not None:
        shapes[io.noise.name] = io.noise.shape
    return shapes


@final
class GuardedInput:
    """The observation as a backend reads it, float32, and the refusal if it is not finite.

    Asked of the input, not of the action: a ReLU kernel can turn NaN into a finite number.
    Of a policy that draws, the noise as well.

    Attributes:
        arrays: what the backend reads, by the graph's names, written in place by `take`.
    """

    def __init__(
        self, bundle: Bundle, arrays: Mapping[str, NDArray[np.float32]] | None = None
    ) -> None:
        """Readies the buffers.

        Args:
            arrays: memory to write into, if it has to be some of the backend's own.
        """
        if arrays is None:
            arrays = {
                name: np.zeros(shape, np.float32) for name, shape in inputs_of(bundle).items()
            }
        self.arrays = arrays
        observation_size, action_size = (
            bundle.contract.observation_size,
            bundle.contract.action_size,
        )
        self._values = arrays["observation"][0]
        noise = bundle.manifest.io.noise
        self._noise = None if noise is None else NoiseSource(noise, arrays[noise.name])
        self._shape = (observation_size,)
        self._refusal: NDArray[np.float32] = np.full(action_size, np.nan, np.float32)
        # One byte a component: `0 in` a bytearray is four times faster than `.all()`.
        self._flags = bytearray(observation_size)
        self._is_finite = np.frombuffer(self._flags, np.bool_)

    def take(self, observation: NDArray[Any]) -> bool:
        """Copies an observation, shape (O,), and draws; whether every component is finite."""
        if observation.shape != self._shape:
            raise ValueError(f"observation has shape {observation.shape}, must be {self._shape}")
        if observation.dtype == FLOAT32:  # leaving out errstate halves what this costs
            self._values[:] = observation
        else:
            # A value beyond float32 becomes infinity here and is refused: no warning needed.
            with np.errstate(over="ignore"):
                self._values[:] = observation
        np.isfinite(self._values, self._is_finite)
        is_finite = 0 not in self._flags
        if is_finite and self._noise is not None:
            self._noise.draw(self._values)
        return is_finite

    def refusal(self) -> NDArray[np.float32]:
        """NaN for every action component, (A,)."""
        return self._refusal.copy()


def check_signature(
    bundle: Bundle, inputs: Signature, outputs: Signature, properties: Mapping[str, str]
) -> None:
    """Raises BundleError unless a graph reads, writes and says what the contract asks for."""
    where = bundle.path / POLICY_FILE
    output = io_of(bundle.contract).output
    for role, found, shapes in (
        ("input", inputs, inputs_of(bundle)),
        ("output", outputs, {output.name: output.shape}),
    ):
        wanted = [(name, "tensor(float)", shape) for name, shape in shapes.items()]
        if sorted(found) != sorted(wanted):  # an engine may list them in another order
            raise BundleError(
                f"{where}: {role} is {found}, the contract asks for {wanted}: "
                f"export the bundle again"
            )
    for key, value in graph_metadata(bundle.contract).items():
        if properties.get(key) != value:
            raise BundleError(
                f"{where}: property {key} is {properties.get(key)!r}, the contract in bundle.json "
                f"gives {value!r}: the two are of different exports, export the bundle again"
            )
