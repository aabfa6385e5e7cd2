"""The closed loop of the simulated arm in lockstep: how fast, and what of it is not physics.

An untrained policy of the demo's size runs the nominal scenario. `overhead_us_per_tick` is all
but MuJoCo's step: sensors to bytes, bytes to the controller, sample, judge, policy, envelope,
bytes to the actuators, and the simulator's own judge. Wall time, the best of many rounds of one
episode, since asking for processor time takes 10 us on some machines, and a tick would ask a dozen
times; then a whole suite on all cores.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks._random_bundle import write_random_bundle
from benchmarks._report import parse_arguments, progress, report
from iql_ros.bundles.format import Support
from iql_ros.contract import load_contract
from sim.episode import Clocked
from sim.gate import controller_of, make_trial, run_suite
from sim.loop import Trial
from sim.scenarios import load_suite
from training.learning.config import load_config

ROBOT = "arm6"
ROUNDS = 200
SUITE_EPISODES = 500


def main() -> None:
    """Measures, and prints the figures."""
    arguments = parse_arguments(__doc__ or "")
    contract = load_contract(ROBOT)
    size = contract.observation_size
    everywhere = Support(
        mean=(0.0,) * size,
        precision=tuple(tuple(row) for row in np.eye(size).tolist()),
        threshold=1e6,
        alpha=0.05,
        false_alarm_bound=0.05,
        episodes=19,
        constant=(),
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_random_bundle(bundle, contract, load_config(None, [], None), everywhere)
        make = partial(controller_of, bundle)
        suite = load_suite(ROBOT)
        progress("one scenario in one process")
        trial = make_trial(suite, 0, make, "nominal")
        rounds = [_round(trial, n) for n in range(20 if arguments.quick else ROUNDS)]
        share = 0.1 if arguments.quick else 1.0
        total = sum(scenario.episodes for scenario in suite.scenarios.values())
        each = max(1, round(share * SUITE_EPISODES / len(suite.scenarios)))
        progress(f"the suite of {total} episodes, {each} of each scenario")
        began = time.perf_counter()
        run_suite(suite.narrowed(episodes=each), 0, make, jobs=os.cpu_count() or 1)
        suite_s = time.perf_counter() - began
    best = min(rounds, key=lambda r: r["tick_us"])
    report(
        "gate",
        arguments.quick,
        {
            "realtime_factor": round(1e6 * trial.world.step_s / best["tick_us"], 1),
            "overhead_us_per_tick": round(best["tick_us"] - best["physics_us"], 1),
            "physics_us_per_tick": round(best["physics_us"], 1),
            "median_realtime_factor": round(
                1e6 * trial.world.step_s / statistics.median(r["tick_us"] for r in rounds), 1
            ),
            "suite_episodes": each * len(suite.scenarios),
            "suite_s": round(suite_s, 1),
        },
    )


def _round(trial: Trial, number: int) -> dict[str, float]:
    """Time of each tick of one episode, microseconds."""
    trial.clocked = Clocked()
    ticks = len(trial.run(number).trace.t_s)
    clocked = trial.clocked
    return {"tick_us": 1e6 * clocked.total_s / ticks, "physics_us": 1e6 * clocked.physics_s / ticks}


if __name__ == "__main__":
    main()
