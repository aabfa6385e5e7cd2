"""The closed loop in lockstep, without ROS: payload bytes to a controller, its bytes to the world.

The controller is the very object that the node runs. A scripted *pilot* takes its place where
logs are recorded: it sees the fields that the sensors measured, signals included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from iql_ros.controller import Controller
from sim.judge import Outcome
from sim.world import Message, World

Array = NDArray[np.float64]
Pilot = Callable[[Mapping[str, Array]], Array]
"""From fields, by name (components,), to an action (A,)."""


def run_episodes(world: World, controller: Controller, episodes: Iterable[int]) -> list[Outcome]:
    """Runs the numbered episodes, each with the controller as it is now."""
    fresh = controller.snapshot()
    outcomes = []
    for episode in episodes:
        controller.restore(fresh)
        outcomes.append(run_episode(world, controller, episode))
    return outcomes


def run_episode(world: World, controller: Controller, episode: int) -> Outcome:
    """Runs one episode with a controller that has not heard of anything yet."""
    world.reset(episode)
    while (outcome := world.outcome()) is None:
        is_due = False
        for message in world.advance():
            is_due |= controller.put(*message)
        if is_due or (controller.contract.tick.trigger is None and world.is_deciding):
            command = controller.tick(message.arrival_ns)
            world.command(command.payloads)
    return outcome


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
    """
    world.reset(episode)
    while (outcome := world.outcome()) is None:
        heard(world.advance())
        if world.is_deciding:
            payloads = world.encode(pilot(world.fields))
            world.command(payloads)
            said(payloads)
    return outcome
