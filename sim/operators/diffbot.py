"""The operators of the diffbot: each finds a way at times, none does so for long."""

from __future__ import annotations

import numpy as np

from sim.operators.working import Array, Crew, Fields, Move, Operator, Shift
from sim.world import World

# Beams of the contract, counter-clockwise from straight ahead, as bearings in [-pi, pi).
BEAMS = (np.deg2rad(np.arange(0, 360, 15)) + np.pi) % (2 * np.pi) - np.pi
IN_FRONT = np.abs(BEAMS) < np.deg2rad(40)
SIDE = np.tanh((BEAMS + 0.15) / 0.35) * np.clip(np.cos(0.8 * BEAMS), 0.0, 1.0)
"""How much a thing at each bearing turns the robot to the right: what is straight ahead, too."""
NEAR_M = 0.6  # things within that distance repel
GOAL_GAIN = 1.2  # 1/s
REPULSION = (2.0, 4.0)  # rad/s
STOP_M, SLOW_M = 0.17, 0.35  # in front: so near it crawls, over so much more it slows down


def drive(speed: float, repulsion: float) -> Move:
    """Drives towards the goal, turned away by what is near: a potential field (Khatib, 1986).

    Args:
        speed: at most, m/s.
        repulsion: of a thing that touches, rad/s.
    """

    def move(fields: Fields) -> Array:
        ahead, beside, _ = fields["to_goal"]
        far, bearing = float(np.hypot(ahead, beside)), float(np.arctan2(beside, ahead))
        ranges = fields["range"]
        reach = min(NEAR_M, far + 0.1)  # what lies behind the goal does not matter
        nearness = np.clip((reach - ranges) / NEAR_M, 0.0, 1.0) ** 1.5
        turn = GOAL_GAIN * np.clip(bearing, -1.0, 1.0) - repulsion * float(nearness @ SIDE)
        clear = np.clip((ranges[IN_FRONT].min() - STOP_M) / SLOW_M, 0.1, 1.0)
        return np.array([speed * clear * np.clip(1.3 - abs(turn) / 1.5, 0.15, 1.0), turn])

    return move


def steady(speed: float, turn: float) -> Move:
    """Commands the same, m/s and rad/s, whatever comes."""
    return lambda _: np.array([speed, turn])


def astray(speed: float, aside: float) -> Move:
    """Drives as it should, but turns by `aside` rad/s besides."""
    good = drive(speed, REPULSION[0])
    return lambda fields: good(fields) + np.array([0.0, aside])


CREW = Crew(
    operators={
        "bold": Operator(0.25, {"drive": 0.3, "blind": 0.7}, 0.03),
        "hesitant": Operator(0.25, {"drive": 0.6, "stop": 0.4}, 0.03),
        "astray": Operator(0.25, {"drive": 0.65, "astray": 0.35}, 0.03),
        "shaky": Operator(0.25, {"drive": 0.75, "turn": 0.25}, 0.08),
    },
    intents={
        "drive": lambda rng: drive(rng.uniform(0.15, 0.2), rng.uniform(*REPULSION)),
        "blind": lambda rng: drive(rng.uniform(0.12, 0.2), 0.0),
        "stop": lambda rng: steady(rng.uniform(0.0, 0.03), 0.0),
        "turn": lambda rng: steady(rng.uniform(0.0, 0.1), rng.uniform(-1.5, 1.5)),
        "astray": lambda rng: astray(rng.uniform(0.12, 0.2), rng.normal(0.0, 1.0)),
    },
    stretch=(2, 8),  # 0.2 to 0.8 s
)


def on_duty(rng: np.random.Generator, world: World) -> Shift:
    """The operator of one episode."""
    return Shift(CREW, rng, world)
