"""One episode of a gate alone: every decision in words, and the viewer if wanted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from iql_ros.control.command import Command
from iql_ros.errors import IqlRosError
from sim.episode import Episode
from sim.gate import MakeController, check, make_trial
from sim.scenarios import Suite
from sim.world import START_NS, World


def replay(
    suite: Suite,
    seed: int,
    make_controller: MakeController,
    scenario: str,
    number: int,
    *,
    say: Callable[[str], None],
    viewer: bool = False,
) -> Episode:
    """Runs episode `number` of a scenario as the gate ran it.

    Args:
        say: called with one line for each decision.
        viewer: also show it in MuJoCo's viewer, in real time.

    Raises:
        ContractError: there is no such scenario, or nothing fits.
        IqlRosError: there is no display for the viewer.
    """
    check(suite, make_controller)
    trial = make_trial(suite, seed, make_controller, scenario)
    names = make_controller().contract.action_names

    def decided(command: Command) -> None:
        t_s = (command.t_ns - START_NS) * 1e-9
        action = ", ".join(f"{n} {v:.3g}" for n, v in zip(names, command.action, strict=True))
        published = "" if command.payloads else " (not published)"
        detail = f": {command.detail}" if command.detail else ""
        say(f"{t_s:7.3f} s  {command.status.value}{detail}{published}  {action}")

    with _viewer(trial.world) if viewer else contextlib.nullcontext(lambda world: None) as seen:
        episode = trial.run(number, seen=seen, decided=decided)
    world = trial.world
    last = ", ".join(f"{name} {_figures(values)}" for name, values in world.fields.items())
    say(f"success is: {world.file.success}; measured last: {last}")
    return episode


def _figures(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


@contextlib.contextmanager
def _viewer(world: World) -> Iterator[Callable[[World], None]]:
    if not os.environ.get("DISPLAY") and os.name == "posix":
        raise IqlRosError("the viewer needs a display, and DISPLAY is not set: leave out --viewer")
    import mujoco.viewer

    with mujoco.viewer.launch_passive(world.model, world.data) as window:
        period_s = world.file.period_ns * 1e-9
        due_s = time.monotonic()

        def seen(world: World) -> None:
            nonlocal due_s
            window.sync()
            due_s += period_s
            time.sleep(max(0.0, due_s - time.monotonic()))

        yield seen


def in_words(episode: Episode) -> str:
    """What came of it."""
    outcome, parts = episode.outcome, []
    parts.append(f"{outcome.ending} after {outcome.duration_s:.2f} s ({outcome.steps} steps)")
    parts.append(f"return {outcome.total_reward:.2f}")
    parts.append(", ".join(f"{count} {status}" for status, count in episode.statuses.items()))
    parts.append(f"{episode.limit_violations} limit and {episode.slew_violations} slew violations")
    if episode.stop_ticks is not None:
        parts.append(f"stopped after {episode.stop_ticks} ticks")
    if episode.notice_ticks is not None:
        parts.append(f"the policy acted for {episode.notice_ticks} ticks after the fault")
    return "; ".join(parts)
