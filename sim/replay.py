"""One episode of a gate alone: every decision in words, and the viewer if wanted."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.control.command import Command
from iql_ros.errors import IqlRosError
from sim.episode import Episode
from sim.gate import MakeController, check, make_trial
from sim.scenarios import Suite
from sim.world import START_NS, World

LAST_LOOK_S = 2.0
CLOSING_S = 5.0


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
    _check_display()
    import mujoco.viewer

    kind = mujoco.mjtObj.mjOBJ_CAMERA
    camera = mujoco.mj_name2id(world.model, kind, world.file.camera or "")
    others = set(threading.enumerate())
    try:
        with mujoco.viewer.launch_passive(
            world.model, world.data, show_left_ui=False, show_right_ui=False
        ) as window:
            if camera >= 0:
                window.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
                window.cam.fixedcamid = camera
            yield _in_real_time(window, world.file.period_ns * 1e-9)
            if window.is_running():
                time.sleep(LAST_LOOK_S)
    finally:
        # Its thread draws on after `close`, and an interpreter that ends meanwhile crashes.
        for thread in set(threading.enumerate()) - others:
            thread.join(CLOSING_S)


def _check_display() -> None:
    """Raises IqlRosError where no window can be opened: MuJoCo itself would end the process."""
    display = os.environ.get("DISPLAY")
    if os.name == "posix" and sys.platform != "darwin" and not display:
        raise IqlRosError("the viewer needs a display, and DISPLAY is not set: leave out --viewer")
    import glfw

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        opened = glfw.init()
    if not opened:
        raise IqlRosError(f"the viewer cannot open the display {display!r}: leave out --viewer")


def _in_real_time(window: Any, period_s: float) -> Callable[[World], None]:
    """Shows each sensor period when it is due; without delay once the window was closed."""
    due_s = time.monotonic()

    def seen(world: World) -> None:
        nonlocal due_s
        if window.is_running():
            window.sync()
            due_s += period_s
            time.sleep(max(0.0, due_s - time.monotonic()))

    return seen


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
