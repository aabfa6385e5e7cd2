"""The reach task: where a target lies, what a step is worth, when an episode ends.

The task is judged on the distance that the sensors report, at the end of each control
period, because that is the distance which a log of the run contains: the simulator and a
dataset converted from its log then agree on every reward and every end of an episode.
The contract `arm6` states the same reward and terminal rule as expressions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACHED_M = 0.05
TIME_LIMIT_STEPS = 60

HOME = np.array([0.0, 0.2, 1.6, -0.23, -1.57, 0.0])  # rad: the tool points down, 0.55 m ahead
START_SPREAD = np.array([0.6, 0.2, 0.2, 0.1, 0.1, 0.1])  # rad, to either side of home

TARGET_LOW = np.array([-0.6, 0.40, 0.20])  # azimuth in rad, radius in m, height in m
TARGET_HIGH = np.array([0.6, 0.62, 0.50])


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went.

    Attributes:
        episode: its number.
        success: the target was reached within the time limit.
        steps: control periods it took.
        total_reward: undiscounted sum of its rewards.
        duration_s: its length in simulated seconds.
    """

    episode: int
    success: bool
    steps: int
    total_reward: float
    duration_s: float


class Account:
    """Adds up one episode and says when it is over."""

    def __init__(self, episode: int, distance: float, step_s: float) -> None:
        """Starts at `distance` metres from the target, with steps of `step_s` seconds."""
        self._episode = episode
        self._distance = distance
        self._step_s = step_s
        self._steps = 0
        self._total_reward = 0.0

    def add(self, next_distance: float) -> EpisodeResult | None:
        """Counts one step that ended `next_distance` metres away; the result if it was the last."""
        self._steps += 1
        self._total_reward += reward(self._distance, next_distance)
        self._distance = next_distance
        success = next_distance < REACHED_M
        if not success and self._steps < TIME_LIMIT_STEPS:
            return None
        return EpisodeResult(
            episode=self._episode,
            success=success,
            steps=self._steps,
            total_reward=self._total_reward,
            duration_s=self._steps * self._step_s,
        )


def reward(distance: float, next_distance: float) -> float:
    """Reward of a step from `distance` to `next_distance` (m).

    Progress, less the price of the time it took: 10 ln(d / d') - 0.2. The progress of an episode
    adds up to the logarithm of all distance covered, so among episodes that arrive the fastest
    earns most; and the last centimetres, where operators dither, count as much as the first.
    """
    return 10.0 * math.log(distance / next_distance) - 0.2


def draw_start(rng: np.random.Generator) -> NDArray[np.float64]:
    """Random joint angles near home, shape (6,), rad."""
    return HOME + rng.uniform(-START_SPREAD, START_SPREAD)


def draw_target(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random point in the reachable sector in front of the arm, shape (3,), m."""
    azimuth, radius, height = rng.uniform(TARGET_LOW, TARGET_HIGH)
    return np.array([radius * np.cos(azimuth), radius * np.sin(azimuth), height])
