"""A simulated robot in lockstep: message payloads in, message payloads out.

A world is made from an MJCF model, a contract and a world file, without code where names match.
No ROS and no clock of its own: time passes only in `advance`. Every episode draws from a
generator of its own, made from the seed and the episode's number, so episode 7 has the same
start and noise whatever controller runs, and two controllers can be compared pairwise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError, LogError
from iql_ros.finite import is_finite
from iql_ros.sampler import SECOND_NS
from sim.judge import Judge, Outcome
from sim.messages import Commands, Sensor
from sim.sources import Model, find_source
from sim.start import draw_start
from sim.world_file import Start, WorldFile, load_world_file

Array = NDArray[np.float64]

# Messages of one instant arrive one after the other; the trigger of the controller's step last.
ARRIVAL_GAP_NS = 50_000
START_NS = 1_000_000_000


class Message(NamedTuple):
    """One message: its topic's alias in the contract, when it arrives (ns), its CDR bytes."""

    alias: str
    arrival_ns: int
    payload: bytes


@dataclass(frozen=True)
class Adapter:
    """What an adapter's `adapt(world)` returns, where names do not match.

    Attributes:
        sensors: by topic alias and message path, a function that gives the numbers there; a
            topic that is here takes nothing from the model by itself.
        start: draws the start of an episode, in place of the file's `start`.
        actuate: takes the commanded action, shape (A,), at every sensor period, in place of
            the file's `actuators`; it sets `world.data.ctrl`.
    """

    sensors: Mapping[str, Mapping[str, Callable[[], ArrayLike]]] = field(default_factory=dict)
    start: Callable[[np.random.Generator], None] | None = None
    actuate: Callable[[Array], None] | None = None


class World:
    """One robot, its surroundings and its task.

    Attributes:
        file: the world file.
        contract: of the machine: its topics, its limits, its reward.
        model, data: MuJoCo's, for rendering, randomising and pushing.
        seed: fixes starts and sensor noise of all episodes.
        t_ns: simulated time; the owner may set it between episodes.
        episode: number of the episode.
        every: sensor periods of a control step.
        action: what the actuators hold, shape (A,).
        noise: by how much the sensors' noise is larger than the file says.
        bias: by topic alias, what is added to all measurements of an episode, shape (W,).
        start: the distribution that starts are drawn from.
        physics_s: seconds that the physics has taken, by `clock`.
    """

    def __init__(
        self,
        file: WorldFile,
        contract: Contract,
        seed: int = 0,
        *,
        spec: Callable[[mujoco.MjSpec], None] = lambda spec: None,
    ) -> None:
        """Builds model, sensors and actuators, and stands at the start of episode 0.

        Args:
            spec: changes the MJCF before it is compiled.

        Raises:
            ContractError: names do not match, and no adapter says how they do.
        """
        self.file, self.contract, self.seed = file, contract, seed
        try:
            parsed = mujoco.MjSpec.from_file(str(file.model))
            spec(parsed)
            self.model: mujoco.MjModel = parsed.compile()
        except ValueError as error:
            raise ContractError(f"model {file.model} cannot be compiled: {error}") from None
        self.data = mujoco.MjData(self.model)
        self._qpos = self.data.qpos
        self._warnings = [self.data.warning[kind] for kind in _DIVERGED]
        self.t_ns = START_NS
        self.episode, self.physics_s = 0, 0.0
        self.clock: Callable[[], float] = time.perf_counter
        self.noise, self.bias = 1.0, dict[str, Array]()
        self.start: Start = file.start
        self._period_ns = file.period_ns
        self._substeps = _substeps(file, self.model.opt.timestep)
        self.every = _periods_per_step(file, contract)
        self._adapter = _adapter(self)
        found = Model(self.model, self.data, file)
        for theirs, ours in file.names.items():
            found.joint(theirs, f"world {file.world!r}, names.{theirs}: {ours}")
        inputs = [alias for alias in contract.topics if alias not in contract.outputs]
        inputs.sort(key=lambda alias: alias == contract.tick.trigger)
        self.sensors = {
            alias: Sensor(
                *(contract, alias, file),
                find_source(
                    *(contract, alias, found, self._adapter.sensors.get(alias, {})),
                    lambda: [float(self.episode)],
                ),
            )
            for alias in inputs
        }
        self._commands = Commands(file, contract, self.model, self._adapter.actuate is not None)
        self._zeroed = {
            alias: timeout_s
            for alias in contract.outputs
            if contract.topics[alias].on_silence == "zero"
            and (timeout_s := contract.topics[alias].command_timeout_s) is not None
        }
        self._judge = Judge(file, contract, self.step_s)
        self.reset(0)

    @property
    def step_s(self) -> float:
        """Duration of a control step, seconds."""
        return self.every * self._period_ns / SECOND_NS

    @property
    def digest(self) -> str:
        """SHA-256 of the compiled model, the world file and the adapter."""
        compiled = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, compiled)
        said = self.file.model_dump_json(exclude={"model", "adapter", "description"})
        parts = [compiled.tobytes(), said.encode(), self.contract.canonical_json().encode()]
        if self.file.adapter is not None:
            parts.append(self.file.adapter.read_bytes())
        return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()

    def reset(self, episode: int) -> None:
        """Puts all where the episode begins; no time passes, the actuators rest."""
        self.episode = episode
        rng = np.random.default_rng([self.seed, episode])
        self._periods = 0
        mujoco.mj_resetData(self.model, self.data)
        if self._adapter.start is not None:
            self._adapter.start(rng)
        else:
            draw_start(self.start, self.model, self.data, rng)
        mujoco.mj_forward(self.model, self.data)
        for number, (alias, sensor) in enumerate(self.sensors.items()):
            sensor.begin(
                np.random.default_rng([self.seed, episode, 2, number]),
                self.noise,
                self.bias.get(alias),
            )
        self._hold(self.contract.action_safe)
        self._commanded_ns: dict[str, int] = {}
        self._judge.begin(episode)

    def advance(self) -> list[Message]:
        """Lets one sensor period of physics pass; what arrives then, the trigger last."""
        self._rest_if_silent()
        if self._adapter.actuate is not None:
            self._adapter.actuate(self.action)
        began = self.clock()
        mujoco.mj_step(self.model, self.data, self._substeps)
        # A step leaves places as they were at its beginning, joints as they are at its end.
        mujoco.mj_kinematics(self.model, self.data)
        self.physics_s += self.clock() - began
        self.t_ns += self._period_ns
        messages: list[Message] = []
        for alias, sensor in self.sensors.items():
            if self._periods % sensor.every == 0:
                payload = sensor.measure(self.t_ns)
                arrival_ns = self.t_ns + len(messages) * ARRIVAL_GAP_NS
                messages.append(Message(alias, arrival_ns, payload))
                self._judge.put(alias, payload)
        self._periods += 1
        if self.is_deciding:
            self._judge.step(self.action, diverged=self._has_diverged())
        return messages

    @property
    def is_deciding(self) -> bool:
        """Whether a control step begins with what was measured last.

        That is at the first period of an episode and then at every n-th: there a controller that
        counts from the episode's beginning decides.
        """
        return (self._periods - 1) % self.every == 0

    @property
    def fields(self) -> Mapping[str, Array]:
        """What the sensors last said where a step begins, by field name, signals included."""
        return self._judge.fields

    def command(self, payloads: Mapping[str, bytes]) -> None:
        """Lets the messages of command topics reach the actuators, which hold them.

        Args:
            payloads: by topic alias.

        Raises:
            LogError: a message lacks a value, or one is not finite; the actuators hold on.
        """
        action = self.action.copy()
        for alias, payload in payloads.items():
            columns, values = self._commands.read(alias, payload)
            if not is_finite(values):
                raise LogError(f"a command on {alias!r} must be finite, this one is {values}")
            action[columns] = values
            self._commanded_ns[alias] = self.t_ns
        self._hold(action)

    def encode(self, action: Array) -> dict[str, bytes]:
        """The messages that command an action, shape (A,), by topic alias, stamped now."""
        return self._commands.write(self.t_ns, action)

    def outcome(self) -> Outcome | None:
        """How the episode ended, once its last control period is whole; None before that.

        As episodes are whole control periods, "every n-th message of the trigger" keeps
        meaning the same instants over many episodes.
        """
        return self._judge.outcome if self._periods % self.every == 0 else None

    def _rest_if_silent(self) -> None:
        """Drives that are told nothing for the contract's `command_timeout_s` go to zero."""
        for alias, timeout_s in self._zeroed.items():
            since_ns = self._commanded_ns.get(alias)
            if since_ns is not None and self.t_ns - since_ns > timeout_s * SECOND_NS:
                del self._commanded_ns[alias]
                action = self.action.copy()
                action[self._commands.columns[alias]] = 0.0
                self._hold(action)

    def _hold(self, action: Array) -> None:
        action.setflags(write=False)
        self.action = action
        if self._adapter.actuate is None:
            self._commands.actuate(action, self.data.ctrl)

    def _has_diverged(self) -> bool:
        return any(each.number for each in self._warnings) or not is_finite(self._qpos)


_DIVERGED = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)


def load_world(source: str | Path, seed: int = 0) -> World:
    """The world of a world file, or a shipped one such as "arm6".

    Raises:
        ContractError: a file is wrong, or the names in model, contract and world do not match.
    """
    return World(*load_world_file(source), seed)


def _substeps(file: WorldFile, timestep_s: float) -> int:
    count = file.period_ns * 1e-9 / timestep_s
    if abs(count - round(count)) > 1e-6 or round(count) < 1:
        raise ContractError(
            f"world {file.world!r}: sensor_hz {file.sensor_hz:g} is a period of {count:g} time "
            f"steps of the model ({timestep_s:g} s each), must be a whole number"
        )
    return round(count)


def _periods_per_step(file: WorldFile, contract: Contract) -> int:
    tick = contract.tick
    if tick.trigger is not None:
        trigger = file.topics.get(tick.trigger)
        return tick.every * (1 if trigger is None else trigger.every)
    assert tick.rate_hz is not None
    count = file.sensor_hz / tick.rate_hz
    if abs(count - round(count)) > 1e-9 or round(count) < 1:
        raise ContractError(
            f"world {file.world!r}: sensor_hz {file.sensor_hz:g} is no multiple of the contract's "
            f"rate_hz {tick.rate_hz:g}"
        )
    return round(count)


def _adapter(world: World) -> Adapter:
    path = world.file.adapter
    if path is None:
        return Adapter()
    spec = importlib.util.spec_from_file_location(f"adapter_of_{world.file.world}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    adapter = module.adapt(world) if hasattr(module, "adapt") else None
    if not isinstance(adapter, Adapter):
        raise ContractError(f"{path} must have a function adapt(world) that returns an Adapter")
    return adapter
