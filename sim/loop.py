"""The closed loop in lockstep, without ROS: readings to a pilot, its command to the world.

A *pilot* takes the readings of the control period that just passed and returns the joint
velocities for the next. A scripted `sim.behaviour.Behaviour` is one; `controller_pilot` makes
one of the very controller that the ROS node runs, fed with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from iql_ros.controller import Controller
from sim.messages import COMMAND, decode_command, encode
from sim.task import Account, EpisodeResult
from sim.world import JOINTS, STEP_S, ArmWorld, Reading

Pilot = Callable[[Sequence[Reading]], NDArray[np.float64]]


def run_episodes(
    world: ArmWorld,
    pilot: Pilot,
    episodes: Iterable[int],
    watch: Callable[[Sequence[Reading]], None] = lambda readings: None,
) -> list[EpisodeResult]:
    """Runs the numbered episodes with one pilot, one after the other."""
    return [run_episode(world, pilot, episode, watch) for episode in episodes]


def run_episode(
    world: ArmWorld,
    pilot: Pilot,
    episode: int,
    watch: Callable[[Sequence[Reading]], None] = lambda readings: None,
) -> EpisodeResult:
    """Runs one episode to its end.

    Args:
        world: is reset to the episode.
        pilot: decides at the end of each control period.
        episode: its number, which with the world's seed fixes start, target and noise.
        watch: sees the readings of every period, the last included, before the pilot does.
    """
    readings = world.reset(episode)
    watch(readings)
    account = Account(episode, readings[-1].distance, STEP_S)
    result = None
    while result is None:
        readings = world.step(pilot(readings))
        watch(readings)
        result = account.add(readings[-1].distance)
    return result


def controller_pilot(controller: Controller) -> Pilot:
    """A pilot that speaks with a fresh `controller` in message payloads, as the ROS node does."""
    command = np.zeros(len(JOINTS))
    is_first = True

    def pilot(readings: Sequence[Reading]) -> NDArray[np.float64]:
        nonlocal command, is_first
        # The controller ticks at every fifth joint state from the first it sees: let that be
        # the last of a period, so that its decisions fall between two periods.
        for i, reading in enumerate(readings[-1:] if is_first else readings):
            for message in encode(reading, announce=i == 0):
                if controller.put(*message):
                    decided = controller.tick(message.arrival_ns)
                    if COMMAND in decided.payloads:
                        command = decode_command(decided.payloads[COMMAND])
        is_first = False
        return command

    return pilot
