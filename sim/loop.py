"""The closed loop in lockstep, without ROS: payload bytes to a controller, its bytes to the world.

The controller is the very object that the node runs. A `Trial` puts it into a scenario and keeps
what came of it. A scripted *pilot* takes its place where logs are recorded: it sees the fields
that the sensors measured, signals included.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from iql_ros.control.command import Command
from iql_ros.controller import Controller
from iql_ros.errors import ContractError, LogError
from iql_ros.finite import any_of
from iql_ros.sampler import SECOND_NS
from sim.episode import Clocked, Episode, Trace
from sim.judge import Outcome
from sim.randomise import Machine
from sim.scenarios import Scenario
from sim.start import put_body, widened
from sim.stream import Stream
from sim.world import START_NS, Message, World

Array = NDArray[np.float64]
Pilot = Callable[[Mapping[str, Array]], Array]
"""From fields, by name (components,), to an action (A,)."""

OBSTACLE = "gate_obstacle"
SLACK = 1e-9  # share of the range of an action: what rounding may add
_NOMINAL = Scenario(description="nothing happens")


class Trial:
    """One controller in one scenario of one world.

    Attributes:
        world: that it runs in.
        clocked: what it has taken so far.
    """

    def __init__(self, world: World, controller: Controller, scenario: Scenario = _NOMINAL) -> None:
        """Takes over all three.

        Args:
            world: made with `obstacle_of(scenario)`.
            controller: as each episode will find it.
        """
        self.world, self._controller, self._scenario = world, controller, scenario
        self._fresh = controller.snapshot()
        self._machine = Machine(world.model, world.data)
        contract = world.contract
        slack = SLACK * (contract.action_high - contract.action_low)
        self._low, self._high = contract.action_low - slack, contract.action_high + slack
        is_slewed = np.isfinite(contract.action_slew)
        self._slew = np.where(is_slewed, contract.action_slew, 0.0)
        self._slack = np.where(is_slewed, slack, np.inf)
        # Messages of one instant arrive within less; what comes later belongs to the next.
        self._instant_ns = world.file.period_ns // 2
        self._timed_by_rate = controller.contract.tick.trigger is None
        self.clocked = Clocked()

    def run(
        self,
        number: int,
        seen: Callable[[World], None] = lambda world: None,
        decided: Callable[[Command], None] = lambda command: None,
        *,
        sent: Callable[[Sequence[Message]], None] = lambda messages: None,
        start_ns: int = START_NS,
    ) -> Episode:
        """Runs one episode.

        Args:
            number: of the episode; with the world's seed it fixes everything.
            seen: called at the end of every sensor period.
            decided: called with every decision.
            sent: called with what the sensors send, before anything becomes of it.
            start_ns: when it begins, which changes nothing but the stamps.
        """
        self._decided, self._start_ns = decided, start_ns
        began, physics_s = self.world.clock(), self.world.physics_s
        self._set_up(number)
        world, step_ns = self.world, round(self.world.step_s * SECOND_NS)
        while (outcome := world.outcome()) is None:
            self._push()
            self._act()
            messages = world.advance()
            sent(messages)
            self._hear(self._stream(messages, world.t_ns + self._instant_ns))
            self._press_stop()
            seen(world)
        self.clocked.physics_s += world.physics_s - physics_s
        self.clocked.total_s += world.clock() - began
        return Episode(
            outcome,
            self._trace(),
            dict(sorted(Counter(command.status.value for command in self._commands).items())),
            self._limit_violations,
            self._slew_violations,
            self._stop_ticks(step_ns),
            self._notice_ticks(),
        )

    # -- one episode -------------------------------------------------------------------

    def _set_up(self, number: int) -> None:
        world, scenario = self.world, self._scenario
        rng = np.random.default_rng([world.seed, number, 1])
        self._machine.vary(scenario.physics, rng)
        world.noise = scenario.noise
        world.bias = {
            alias: scenario.bias * sensor.spread * rng.uniform(-1, 1, sensor.width)
            for alias, sensor in world.sensors.items()
            if scenario.bias
        }
        world.start = widened(world.file.start, scenario.start_width)
        world.t_ns = self._start_ns
        world.reset(number)
        if scenario.obstacle is not None:
            put_body(OBSTACLE, scenario.obstacle.place, world.model, world.data, rng)
            mujoco.mj_forward(world.model, world.data)
        self._controller.restore(self._fresh)
        self._stream = Stream(scenario, self._controller.contract, self._start_ns, rng)
        ticks = int(rng.integers(scenario.delay_ticks[0], scenario.delay_ticks[1] + 1))
        latency_s = rng.uniform(*scenario.latency_s)
        self._delay_ns = round((ticks * world.step_s + latency_s) * SECOND_NS)
        self._stop_ns: int | None = None
        if scenario.stop_at_s is not None:
            self._stop_ns = self._start_ns + round(rng.uniform(*scenario.stop_at_s) * SECOND_NS)
        self._stopped_ns: int | None = None
        self._moved_ns = self._start_ns
        self._rng = rng
        self._on_the_way: deque[tuple[int, Command]] = deque()
        self._last: Command | None = None
        self._commands: list[Command] = []
        self._limit_violations = self._slew_violations = 0

    def _push(self) -> None:
        push, world = self._scenario.push, self.world
        if push is None:
            return
        every_ns = round(push.every_s * SECOND_NS)
        since_ns = (world.t_ns - self._start_ns) % every_ns
        if world.t_ns == self._start_ns:
            self._body = world.model.body(push.body).id
        if since_ns < world.file.period_ns and world.t_ns > self._start_ns + since_ns:
            angle, force = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(*push.force)
            world.data.xfrc_applied[self._body, :2] = force * np.cos(angle), force * np.sin(angle)
        elif since_ns >= push.duration_s * SECOND_NS:
            world.data.xfrc_applied[self._body] = 0.0

    def _hear(self, messages: Sequence[Message]) -> None:
        controller, world = self._controller, self.world
        has_ticked = False
        for message in messages:
            if controller.put(*message):
                self._tick(message.arrival_ns)
                has_ticked = True
        if self._timed_by_rate and world.is_deciding:
            self._tick(max(messages[-1].arrival_ns if messages else 0, world.t_ns))
            has_ticked = True
        if has_ticked or not world.is_deciding:
            return
        overdue = controller.overdue(world.t_ns + self._instant_ns)
        if overdue is not None:
            self._say(overdue)

    def _tick(self, t_ns: int) -> None:
        began = time.thread_time()
        command = self._controller.tick(t_ns)
        self.clocked.ticks_s.append(time.thread_time() - began)
        self._say(command)

    def _press_stop(self) -> None:
        if self._stopped_ns is not None and not self._is_safe():
            self._moved_ns = self.world.t_ns
        if self._stop_ns is not None and self.world.t_ns >= self._stop_ns:
            self._stopped_ns = self.world.t_ns
            self._stop_ns = None
            now_ns = self._stopped_ns + self._instant_ns
            self._say(self._controller.halt("pressed by the scenario", now_ns))

    def _say(self, command: Command) -> None:
        """Notes a decision, and sends its messages on their way."""
        self._commands.append(command)
        self._decided(command)
        if command.payloads:
            self._on_the_way.append((self.world.t_ns + self._delay_ns, command))

    def _act(self) -> None:
        """Lets the commands that are due reach the actuators."""
        world = self.world
        while self._on_the_way and self._on_the_way[0][0] <= world.t_ns:
            _, command = self._on_the_way.popleft()
            before = world.action
            try:
                world.command(command.payloads)
            except LogError:  # the drives refuse what is no number
                self._limit_violations += 1
                continue
            action = world.action
            if any_of((action < self._low) | (action > self._high)):
                self._limit_violations += 1
            self._check_slew(before, action, command)

    def _check_slew(self, before: Array, action: Array, command: Command) -> None:
        """The fallback may be as sudden as the contract declares it; the policy may not.

        Its first command must be rest: the safe action, or where the robot is measured to be.
        """
        last, self._last = self._last, command
        if not command.status.acts:
            return
        change, since_ns = np.abs(action - before), 0
        if last is None:
            change[self.world.contract.measured[0]] = 0.0
        else:
            since_ns = command.t_ns - last.t_ns
        if any_of(change > self._slew * (since_ns / SECOND_NS) + self._slack):
            self._slew_violations += 1

    def _stop_ticks(self, step_ns: int) -> int | None:
        if self._stopped_ns is None:
            return None
        return max(0, -(-(self._moved_ns - self._stopped_ns) // step_ns))

    def _is_safe(self) -> bool:
        return bool((self.world.action == self.world.contract.action_safe).all())

    def _notice_ticks(self) -> int | None:
        fault_ns = self._stream.fault_ns
        if fault_ns is None:
            return None
        after = [command.status.value for command in self._commands if command.t_ns >= fault_ns]
        fallen = (i for i, status in enumerate(after) if status in FALLEN)
        return next(fallen, len(after)) if after else None

    def _trace(self) -> Trace:
        contract, commands = self._controller.contract, self._commands
        unknown = np.full(contract.observation_size, np.nan, np.float32)
        observed = [unknown if c.observation is None else c.observation for c in commands]
        return Trace(
            np.array([(command.t_ns - self._start_ns) / SECOND_NS for command in commands]),
            tuple(command.status.value for command in commands),
            np.array(observed, np.float32).reshape(len(commands), contract.observation_size),
            np.array([c.action for c in commands]).reshape(len(commands), contract.action_size),
        )


FALLEN = frozenset(
    {"stale", "frozen", "not finite", "outside", "budget", "policy", "recovering", "waiting"}
)
"""What a tick is called in which the controller has found a fault."""


def obstacle_of(scenario: Scenario) -> Callable[[mujoco.MjSpec], None]:
    """Puts the scenario's obstacle into a model that is about to be compiled."""
    obstacle = scenario.obstacle

    def change(spec: mujoco.MjSpec) -> None:
        if obstacle is not None:
            body = spec.worldbody.add_body(name=OBSTACLE, mocap=True)
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                size=[obstacle.radius, 0, 0],
                rgba=[0.2, 0.2, 0.25, 1],
                contype=1,
                conaffinity=1,
            )

    return change


def run_episodes(world: World, controller: Controller, episodes: Iterable[int]) -> list[Outcome]:
    """Runs the numbered episodes with nothing else happening."""
    trial = Trial(world, controller)
    return [trial.run(number).outcome for number in episodes]


def fly(
    world: World,
    pilot: Pilot,
    episode: int,
    heard: Callable[[Sequence[Message]], None] = lambda messages: None,
    said: Callable[[Mapping[str, bytes]], None] = lambda payloads: None,
) -> Outcome:
    """Runs one episode with a scripted pilot.

    Args:
        world: is reset to the episode.
        pilot: decides at the beginning of each control step.
        episode: its number, which with the world's seed fixes start and noise.
        heard: sees the messages of every sensor period, before the pilot does.
        said: sees the messages of every command.

    Raises:
        ContractError: the pilot gives no action of the contract.
    """
    world.reset(episode)
    size = world.contract.action_size
    while (outcome := world.outcome()) is None:
        heard(world.advance())
        if world.is_deciding:
            action = np.asarray(pilot(world.fields), np.float64)
            if action.shape != (size,) or not np.isfinite(action).all():
                names = ", ".join(world.contract.action_names)
                raise ContractError(
                    f"the drivers of world {world.file.world!r} gave {action}: an action is {size} "
                    f"finite numbers in the contract's order ({names})"
                )
            payloads = world.encode(action)
            world.command(payloads)
            said(payloads)
    return outcome
