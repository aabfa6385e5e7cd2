"""What of a run over ROS differs from the same episodes in lockstep, where the gate counts.

Over ROS time passes between a measurement and its command, messages wait for a thread, and the
controller goes on from one episode to the next. In lockstep none of that is so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sim.gate import controller_of
from sim.judge import Outcome
from sim.loop import Trial
from sim.world import load_world


def compare(bundle: str, world: str, seed: int, over_ros: Sequence[Outcome]) -> dict[str, Any]:
    """Plays the episodes of `over_ros` in lockstep, and sets both beside each other.

    Args:
        bundle: folder of the bundle that the controller ran.
        world, seed: as they were simulated.

    Returns:
        Facts as JSON has them; `in_words` says them.
    """
    controller = controller_of(Path(bundle), "onnx", time.perf_counter)
    trial = Trial(load_world(world, seed), controller)
    lockstep = [trial.run(outcome.episode).outcome for outcome in over_ros]
    ticks_us = 1e6 * np.array(trial.clocked.ticks_s)
    pairs = list(zip(over_ros, lockstep, strict=True))
    return {
        "lockstep": [asdict(outcome) for outcome in lockstep],
        "successes": {
            "ros": sum(outcome.success for outcome in over_ros),
            "lockstep": sum(outcome.success for outcome in lockstep),
        },
        "other_ending": [
            {"episode": ros.episode, "ros": ros.ending, "lockstep": step.ending}
            for ros, step in pairs
            if ros.ending != step.ending
        ],
        "steps": _spread([float(ros.steps - step.steps) for ros, step in pairs]),
        "return": _spread([ros.total_reward - step.total_reward for ros, step in pairs]),
        "tick_us": {f"p{p}": float(np.percentile(ticks_us, p)) for p in (50, 99, 100)},
    }


def in_words(facts: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """The difference, a sentence a line.

    Args:
        facts: as `compare` returns them.
        results: of the run over ROS.
    """
    count, successes = len(facts["lockstep"]), facts["successes"]
    latency, tick = results["latency_us"], facts["tick_us"]
    lines = [
        f"outcome: {successes['ros']} of {count} succeeded over ROS, {successes['lockstep']} of "
        f"{count} in lockstep"
    ]
    lines += [
        f"episode {other['episode']}: {other['ros']} over ROS, {other['lockstep']} in lockstep"
        for other in facts["other_ending"]
    ]
    lines += [
        f"{name}, ROS less lockstep: mean {spread['mean']:+.2f}, from {spread['least']:+.2f} to "
        f"{spread['most']:+.2f}"
        for name, spread in ((name, facts[name]) for name in ("steps", "return"))
    ]
    if latency["commands"]:
        lines.append(
            f"latency: from measurement to command p50 {latency['p50']:.0f} us, p99 "
            f"{latency['p99']:.0f} us, largest {latency['p100']:.0f} us over ROS; in lockstep no "
            f"time passes, while a tick computes for p50 {tick['p50']:.0f} us, p99 "
            f"{tick['p99']:.0f} us"
        )
        lines.append(
            f"{results['out_of_step']} of {latency['commands']} commands came after another sensor "
            f"period (of {results['sensor_period_ms']:g} ms) than in lockstep: late, or since a "
            f"message was lost"
        )
    return lines


def _spread(differences: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(differences)),
        "least": min(differences),
        "most": max(differences),
    }
