"""The operators of the diffbot: each finds a way at times, none does so for long."""

from __future__ import annotations

import numpy as np

from sim.operators.working import Array, Crew, Fields, Move, Operator, Shift
from sim.world import World

# Beams of the contract, and the lidar's place behind the axle: sim/models/diffbot.xml.
BEAMS = np.deg2rad(np.arange(0, 360, 15))
BEARINGS = (BEAMS + np.pi) % (2 * np.pi) - np.pi
LIDAR_BEHIND_M = 0.032
HEADINGS = np.deg2rad(np.arange(-120, 121, 10))
HALF_WIDTH_M, NARROW_M = 0.19, 0.13  # of the robot, with some room and with little
LOOK_AHEAD_M = 1.2
TOO_NEAR_M = 0.2
TURN_GAIN = 2.0  # 1/s


def find_way(fields: Fields) -> tuple[float, float]:
    """The heading, rad, that gets nearest to the goal without touching, and how far it is free.

    Of some headings it takes the one with the longest free corridor, less a price of turning away
    from the goal: what Borenstein and Koren's vector field histogram (1991) does, in short.
    """
    along = fields["range"] * np.cos(BEAMS) - LIDAR_BEHIND_M
    across = fields["range"] * np.sin(BEAMS)
    goal = fields["to_goal"]
    far, bearing = float(np.hypot(goal[0], goal[1])), float(np.arctan2(goal[1], goal[0]))
    c, s = np.cos(HEADINGS)[:, None], np.sin(HEADINGS)[:, None]
    ahead, beside = c * along + s * across, c * across - s * along
    # What is already beside the robot is passed, however near.
    half_width = np.where(fields["range"] < 0.3, NARROW_M, HALF_WIDTH_M)
    in_the_way = (ahead > 0.02) & (np.abs(beside) < half_width)
    free = np.where(in_the_way, ahead, 3.0).min(axis=1)
    astray = np.abs((HEADINGS - bearing + np.pi) % (2 * np.pi) - np.pi)
    # Where both sides of a post are alike, all keep to the left of it.
    score = np.minimum(free, min(far, LOOK_AHEAD_M)) - 0.35 * astray
    score += 0.1 * HEADINGS - 0.05 * np.abs(HEADINGS)
    best = int(score.argmax())
    if free[best] < TOO_NEAR_M:
        return turn_away(fields["range"]), float(free[best])
    return float(HEADINGS[best]), float(free[best])


def turn_away(ranges: Array) -> float:
    """The bearing, rad, in front or to a side, around which most is free."""
    neighbours = [np.roll(ranges, shift) for shift in (-2, -1, 0, 1, 2)]
    room = np.where(np.abs(BEARINGS) < 2.2, np.min(neighbours, axis=0), 0.0)
    return float(BEARINGS[int(room.argmax())])


def drive(speed: float) -> Move:
    """Drives towards the goal and around what stands in the way, at most `speed` m/s."""

    def move(fields: Fields) -> Array:
        heading, free = find_way(fields)
        share = np.clip(np.cos(heading), 0.0, 1.0) ** 2 * np.clip((free - 0.12) / 0.15, 0.0, 1.0)
        return np.array([speed * share, TURN_GAIN * heading])

    return move


def blind(speed: float) -> Move:
    """Drives straight at the goal, whatever stands in the way."""

    def move(fields: Fields) -> Array:
        bearing = np.arctan2(fields["to_goal"][1], fields["to_goal"][0])
        return np.array([speed * max(0.0, np.cos(bearing)), TURN_GAIN * bearing])

    return move


def steady(speed: float, turn: float) -> Move:
    """Commands the same, m/s and rad/s, whatever comes."""
    return lambda _: np.array([speed, turn])


def astray(speed: float, angle: float) -> Move:
    """Drives as it should, but `angle` rad to the side."""
    good = drive(speed)
    return lambda fields: good(fields) + np.array([0.0, TURN_GAIN * angle])


CREW = Crew(
    operators={
        "bold": Operator(0.25, {"drive": 0.65, "blind": 0.35}, 0.03),
        "hesitant": Operator(0.25, {"drive": 0.65, "stop": 0.35}, 0.03),
        "astray": Operator(0.25, {"drive": 0.75, "astray": 0.25}, 0.03),
        "shaky": Operator(0.25, {"drive": 0.8, "turn": 0.2}, 0.08),
    },
    intents={
        "drive": lambda rng: drive(rng.uniform(0.14, 0.2)),
        "blind": lambda rng: blind(rng.uniform(0.1, 0.2)),
        "stop": lambda rng: steady(rng.uniform(0.0, 0.03), 0.0),
        "turn": lambda rng: steady(rng.uniform(0.0, 0.1), rng.uniform(-1.5, 1.5)),
        "astray": lambda rng: astray(rng.uniform(0.1, 0.2), rng.normal(0.0, 1.2)),
    },
    stretch=(2, 8),  # 0.2 to 0.8 s
)


def on_duty(rng: np.random.Generator, world: World) -> Shift:
    """The operator of one episode."""
    return Shift(CREW, rng, world)
