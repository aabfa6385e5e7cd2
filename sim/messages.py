"""The simulator's side of the wire: measurements to payloads, payloads to actuators.

Recorder, lockstep loop and ROS node all use these bytes, so what a policy meets in one of
them is what it meets in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import mujoco
import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.paths import component_labels
from iql_ros.control.outputs import Output
from iql_ros.errors import ContractError, LogError
from iql_ros.wire import Reader, Writer, make_types
from sim.expressions import Expression
from sim.sources import Source
from sim.world_file import TopicSource, WorldFile

Array = NDArray[np.float64]
BLOCK = 64  # messages


class Sensor:
    """Measures and writes one topic.

    Attributes:
        every: a message at every n-th sensor period.
        width: how many values a message holds, W.
        spread: standard deviation of the noise of each, shape (W,), where the value is zero.
    """

    def __init__(self, contract: Contract, alias: str, file: WorldFile, source: Source) -> None:
        """Compiles the writer.

        Raises:
            ContractError: a path does not fit the message type, or noise is of no part.
        """
        said = file.topics.get(alias, TopicSource())
        types, msgtype = make_types(contract.definitions), contract.topics[alias].type
        paths = [part.path for part in source.parts]
        self._writer = Writer(types, msgtype, paths, source.constants)
        widths = [len(component_labels(path)) for path in paths]
        self.every = said.every
        self.width = sum(widths)
        names = [part.name for part in source.parts]
        unknown = set(said.noise) - set(names)
        if unknown:
            raise ContractError(
                f"world {file.world!r}, topics.{alias}.noise names {', '.join(sorted(unknown))}: "
                f"there are {', '.join(names)}"
            )
        still = [name for name in said.noise_share if not said.noise.get(name)]
        if still:
            raise ContractError(
                f"world {file.world!r}, topics.{alias}.noise_share names {', '.join(still)}, "
                f"which noise does not: give the deviation that is there at 0"
            )
        spread = [said.noise.get(name, 0.0) for name in names]
        growth = [said.noise_share.get(name, 0.0) / said.noise.get(name, 1.0) for name in names]
        self.spread, self._growth = np.repeat(spread, widths), np.repeat(growth, widths)
        self._grows = bool(self._growth.any())
        self._row = np.zeros(self.width)
        places = np.split(self._row, list(accumulate(widths)))  # and nothing behind the last
        self._reads = [(part.read, at) for part, at in zip(source.parts, places, strict=False)]
        self.begin(np.random.default_rng(), 1.0, None)

    def begin(self, rng: np.random.Generator, noise: float, bias: Array | None) -> None:
        """Begins an episode.

        Args:
            rng: of the noise, this topic's own.
            noise: scales it.
            bias: added to the values, shape (W,); grows with them as their noise does.
        """
        self._rng, self._scale, self._bias = rng, noise * self.spread, bias
        self._is_exact = bias is None and not self._scale.any()
        self._errors: Iterator[Array] = iter(())

    def measure(self, t_ns: int) -> bytes:
        """The message of this instant."""
        row = self._row
        for read, place in self._reads:
            place[:] = read()
        if not self._is_exact:
            error = self._error()
            row += error * np.hypot(1.0, self._growth * row) if self._grows else error
        return self._writer.write(row, t_ns)

    def _error(self) -> Array:
        error = next(self._errors, None)
        if error is None:  # drawn for many messages at once: one at a time takes 4 us each
            errors = self._scale * self._rng.standard_normal((BLOCK, self.width))
            if self._bias is not None:
                errors += self._bias
            self._errors = iter(errors)
            error = next(self._errors)
        return error


class Commands:
    """Reads command topics, and turns an action into controls of the model.

    Attributes:
        columns: by topic alias, the action components that it carries.
    """

    def __init__(
        self, file: WorldFile, contract: Contract, model: mujoco.MjModel, adapted: bool
    ) -> None:
        """Finds an actuator for everything that is commanded.

        Args:
            adapted: an adapter drives the actuators.

        Raises:
            ContractError: an actuator of the model is commanded by nothing.
        """
        types = make_types(contract.definitions)
        self._outputs = {alias: Output(contract, types, alias) for alias in contract.outputs}
        self._readers, self.columns = {}, {}
        for alias in contract.outputs:
            actions = [action for action in contract.actions if action.topic == alias]
            paths = [action.path for action in actions]
            self._readers[alias] = Reader(types, contract.topics[alias].type, paths)
            names = [name for action in actions for name in contract.components(action.name)]
            self.columns[alias] = np.array([contract.action_names.index(name) for name in names])
        self._names = contract.action_names
        drives = [] if adapted else _drives(file, contract, model)
        columns = {name: column for column, name in enumerate(self._names)}
        plain = [(number, columns[e.text]) for number, e in drives if e.text in columns]
        self._driven, self._by = np.array(plain, np.intp).reshape(-1, 2).T
        self._computed = [(number, e) for number, e in drives if e.text not in columns]

    def read(self, alias: str, payload: bytes) -> tuple[NDArray[np.intp], Array]:
        """Which action components a message commands, and their values.

        Raises:
            LogError: it lacks one.
        """
        reader = self._readers[alias]
        values = reader.read(payload)
        if values is None:
            raise LogError(f"a command on {alias!r} is incomplete: {reader.why_absent(payload)}")
        return self.columns[alias], values

    def write(self, t_ns: int, action: Array) -> dict[str, bytes]:
        """The messages that command an action, shape (A,), by topic alias."""
        return {alias: output.write(t_ns, action) for alias, output in self._outputs.items()}

    def actuate(self, action: Array, ctrl: Array) -> None:
        """Sets the controls of the model, shape (nu,)."""
        ctrl[self._driven] = action[self._by]
        if self._computed:
            values = dict(zip(self._names, action.tolist(), strict=True))
            for number, expression in self._computed:
                ctrl[number] = expression(values)


def _drives(
    file: WorldFile, contract: Contract, model: mujoco.MjModel
) -> list[tuple[int, Expression]]:
    """For each actuator its number and what drives it."""
    names = contract.action_names
    by_label = {
        label: component
        for action in contract.actions
        for label, component in zip(
            component_labels(action.path), contract.components(action.name), strict=True
        )
    }
    actuators = [model.actuator(i).name for i in range(model.nu)]
    owner = f"world {file.world!r}, actuators"
    for name in file.actuators:
        if name not in actuators:
            raise ContractError(f"{owner}.{name}: the model has {', '.join(actuators) or 'none'}")
    drives = []
    for number, actuator in enumerate(actuators):
        text = file.actuators.get(actuator, actuator)
        text = text if text in names else by_label.get(text, text)
        try:
            drives.append((number, Expression(text, names, f"{owner}.{actuator}")))
        except ContractError as error:
            raise ContractError(
                f"{error}; say which in the world file's `actuators`, or write an adapter"
            ) from None
    return drives
