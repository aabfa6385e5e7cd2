"""The operators whose logs become the dataset: scripted, of mixed quality, none an expert.

An operator works in stretches of a few tenths of a second. In each it follows one *intent*:
reach for the target at some speed, hover above it, stray, move with some joints reversed,
shake, or let go. What an operator does well and how often is one row of `OPERATORS`. The good
moves are all there, but scattered, and the bad ones do not cancel: the wary keep hovering above
the target, so an imitator of the average stops short of it, while a learner that weighs each
move by what came of it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.world import World

MODEL = Path(__file__).parent / "models" / "arm6.xml"
JOINTS = 6
HOME = np.array([0.0, 0.2, 1.6, -0.23, -1.57, 0.0])  # rad: the tool points down, 0.55 m ahead
HOVER = np.array([-0.06, 0.0, 0.16])  # m, from the target to where the wary stop

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Operator:
    """How one kind of operator works.

    Attributes:
        share: how often this operator is on duty, relative to the others.
        intents: how often it takes up each intent, relative to its other intents.
        speed: range of tool speeds it reaches with, m/s.
        noise: standard deviation of its hand, rad/s.
    """

    share: float
    intents: dict[str, float]
    speed: tuple[float, float]
    noise: float


OPERATORS = {
    "slow": Operator(0.2, {"reach": 0.55, "hover": 0.45}, (0.02, 0.12), 0.05),
    "astray": Operator(0.2, {"reach": 0.25, "stray": 0.4, "hover": 0.35}, (0.1, 0.4), 0.05),
    "reversed": Operator(0.2, {"reach": 0.3, "reverse": 0.2, "hover": 0.5}, (0.1, 0.4), 0.05),
    "jittery": Operator(0.2, {"reach": 0.25, "shake": 0.25, "hover": 0.5}, (0.1, 0.4), 0.15),
    "quitter": Operator(0.2, {"reach": 0.25, "let_go": 0.15, "hover": 0.6}, (0.1, 0.4), 0.05),
}


class Behaviour:
    """One operator at work for one episode: a pilot (see `sim.loop`)."""

    def __init__(self, rng: np.random.Generator, world: World) -> None:
        """Draws the operator who is on duty from `rng`; the limits are those of the contract."""
        self._rng = rng
        contract = world.contract
        self._low, self._high = contract.action_low, contract.action_high
        self._change = contract.action_slew * world.step_s
        self._arm = Arm()
        names = list(OPERATORS)
        shares = np.array([OPERATORS[name].share for name in names])
        self._operator = OPERATORS[names[rng.choice(len(names), p=shares / shares.sum())]]
        self._command = np.zeros(JOINTS)
        self._steps_left = 0

    def __call__(self, fields: Mapping[str, Array]) -> Array:
        """The joint velocities (6,), rad/s, for the step that begins."""
        if self._steps_left == 0:
            self._take_up_intent()
        self._steps_left -= 1
        wanted = self._signs * self._arm.towards(
            fields["q"], self._goal(fields["goal"]), self._speed
        )
        wanted = wanted + self._shake + self._rng.normal(0.0, self._operator.noise, JOINTS)
        if self._intent == "let_go":
            wanted = np.zeros(JOINTS)
        wanted = np.clip(wanted, self._command - self._change, self._command + self._change)
        self._command = np.clip(wanted, self._low, self._high)
        return self._command

    def _take_up_intent(self) -> None:
        rng, operator = self._rng, self._operator
        weights = np.array(list(operator.intents.values()))
        self._intent = list(operator.intents)[rng.choice(weights.size, p=weights / weights.sum())]
        # 0.1 to 0.4 s. In stretches of a second, all moves along a piece of a trajectory are
        # good or bad alike, and a value function learns them by heart: its advantages
        # correlated with progress by 0.50 then, against 0.74 now.
        self._steps_left = int(rng.integers(2, 9))
        self._speed = rng.uniform(*operator.speed)
        self._detour = rng.normal(0.0, 0.15, 3)
        reverse = (self._intent == "reverse") * (rng.random(JOINTS) < Arm.POSITIONING / 2)
        self._signs = 1.0 - 2.0 * reverse
        self._shake = (self._intent == "shake") * rng.normal(0.0, 0.4 * Arm.POSITIONING)

    def _goal(self, target: Array) -> Array:
        if self._intent == "hover":
            return target + HOVER
        if self._intent == "stray":
            return target + self._detour
        return target


class Arm:
    """Resolved-rate control from measured joint angles, on a kinematic model of the arm."""

    GAIN = 4.0  # 1/s: slow down within speed / gain metres of the goal
    DAMPING = 0.05
    POSTURE_GAIN = 2.0  # 1/s
    POSITIONING = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])  # joints that move the tool

    def __init__(self) -> None:
        """Loads the model."""
        self._model = mujoco.MjModel.from_xml_path(str(MODEL))
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tcp").id
        self._jacobian = np.zeros((3, JOINTS))

    def position(self, q: Array) -> Array:
        """Position of the tool's tip at joint angles `q` (6,), shape (3,), m."""
        self._data.qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy()

    def towards(self, q: Array, goal: Array, speed: float) -> Array:
        """Joint velocities that move the tool straight to a goal.

        Damped least squares with the first three joints, while the wrist returns to its home
        posture: dq = J# v + (I - J# J) (I - W) k (home - q), J# = W J' (J W J' + l^2 I)^-1.

        Args:
            q: joint angles, shape (6,), rad.
            goal: shape (3,), m.
            speed: largest speed of the tool, m/s.

        Returns:
            Joint velocities, shape (6,), rad/s.
        """
        error = goal - self.position(q)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian, None, self._site)
        velocity = self.GAIN * error
        velocity *= min(1.0, speed / max(float(np.linalg.norm(velocity)), 1e-9))
        jacobian = self._jacobian
        weighted = self.POSITIONING[:, None] * jacobian.T
        gram = jacobian @ weighted + self.DAMPING**2 * np.eye(3)
        posture = (1.0 - self.POSITIONING) * self.POSTURE_GAIN * (HOME - q)
        return posture + weighted @ np.linalg.solve(gram, velocity - jacobian @ posture)
