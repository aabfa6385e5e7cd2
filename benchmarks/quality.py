"""Do our policies walk as far as d3rlpy's? IQL of both, and BC, on files made after D4RL's.

For Hopper and Walker2d each of *medium*, *medium-replay* and *medium-expert* is made by SAC of
stable-baselines3. Every learner gets the same files, updates and seeds; its policies are judged
by the return of whole episodes from the same start states, on D4RL's scale: 0 is random, 100
the expert. What is finished stays in --out, so that the same command goes on after a stop.
`--quick` makes its files by chance and proves only that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks._locomotion import REFERENCE_RETURNS
from benchmarks._locomotion_datasets import (
    KINDS,
    Recipe,
    load_recipe,
    make_datasets,
    write_stand_in,
)
from benchmarks._quality_intervals import Scores, difference, mean_interval
from benchmarks._quality_trial import LEARNERS, Trial, run_peer, run_trial
from benchmarks._report import progress, report
from iql_ros import workers
from iql_ros.errors import IqlRosError

CHECKPOINT_EVERY = 10_000
MIXED = ("medium-replay", "medium-expert")


def main() -> None:
    arguments = _parse_arguments()
    try:
        if arguments.quick:
            with tempfile.TemporaryDirectory(prefix="iql_ros_quality_") as folder:
                results = _quick(arguments, Path(folder))
        else:
            results = _measure(arguments)
    except IqlRosError as error:
        sys.exit(str(error))
    report("quality", arguments.quick, results)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="finish in under a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--peer-python", type=Path, help="has d3rlpy and stable-baselines3")
    parser.add_argument("--robots", nargs="+", default=list(REFERENCE_RETURNS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=LEARNERS)
    parser.add_argument("--sac-steps", type=int, default=200_000, help="environment steps")
    parser.add_argument("--transitions", type=int, default=200_000, help="of rollouts, a policy")
    parser.add_argument("--steps", type=int, default=20_000, help="gradient updates of a trial")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20, help="to judge a policy by")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    return parser.parse_args()


def _quick(arguments: argparse.Namespace, out: Path) -> dict[str, object]:
    """The whole path at a tiny scale; without d3rlpy where no --peer-python is given."""
    robot = "Hopper-v5"
    write_stand_in(out / robot / "sac", robot, observation_size=11, action_size=3)
    recipes = {robot: make_datasets(out / robot, robot, sac_steps=2000, transitions=1000)}
    if arguments.peer_python is None:
        progress("no --peer-python: d3rlpy is left out")
        arguments.learners = [name for name in arguments.learners if name != "d3rlpy_iql"]
    arguments.steps, arguments.seeds, arguments.episodes = 100, 2, 2
    trials = _trials(recipes, out, arguments)
    for trial in trials:
        run_trial(trial)
    return _results(recipes, trials)


def _measure(arguments: argparse.Namespace) -> dict[str, object]:
    recipes = {robot: _datasets(arguments, robot) for robot in arguments.robots}
    trials = _trials(recipes, arguments.out.absolute(), arguments)
    with workers.Pool(arguments.jobs, drops=True) as pool:
        list(pool.map(run_trial, trials))
    return _results(recipes, trials)


def _datasets(arguments: argparse.Namespace, robot: str) -> Recipe:
    folder = arguments.out.absolute() / robot
    recipe = load_recipe(folder, arguments.sac_steps, arguments.transitions)
    if recipe is not None:
        return recipe
    scores = folder / "sac" / "scores.json"
    reached = max(map(int, json.loads(scores.read_text()))) if scores.exists() else 0
    if reached < arguments.sac_steps:
        progress(f"{robot}: SAC, {arguments.sac_steps} steps")
        run_peer(
            arguments.peer_python,
            "_locomotion_sac",
            robot,
            folder / "sac",
            arguments.sac_steps,
            CHECKPOINT_EVERY,
        )
    progress(f"{robot}: rollouts")
    return make_datasets(folder, robot, arguments.sac_steps, arguments.transitions)


def _trials(recipes: dict[str, Recipe], out: Path, arguments: argparse.Namespace) -> list[Trial]:
    """All trials, seed by seed, so that an early stop leaves every file with some."""
    return [
        Trial(
            *(robot, out / robot / f"{kind}.h5", learner, arguments.steps, seed),
            *(arguments.episodes, arguments.peer_python),
        )
        for seed in range(arguments.seeds)
        for robot in recipes
        for kind in arguments.kinds
        for learner in arguments.learners
    ]


def _results(recipes: dict[str, Recipe], trials: list[Trial]) -> dict[str, object]:
    files: dict[str, object] = {}
    for robot in recipes:
        for kind in KINDS:
            mine = [t for t in trials if t.robot == robot and t.dataset.stem == kind]
            if mine:
                files[f"{robot}/{kind}"] = _compared(mine, mixed=kind in MIXED)
    return {
        "updates": trials[0].steps,
        "episodes": trials[0].episodes,
        "recipes": {robot: asdict(recipe) for robot, recipe in recipes.items()},
        "files": files,
    }


def _compared(trials: list[Trial], *, mixed: bool) -> dict[str, object]:
    """Mean and interval of every learner on one file, and how far ours is from the others."""
    scores: dict[str, Scores] = {}
    for trial in trials:
        result = json.loads(trial.result.read_text())
        scores.setdefault(trial.learner, []).append(result["scores"])
    compared: dict[str, object] = {
        learner: {**mean_interval(values), "seeds": [sum(s) / len(s) for s in values]}
        for learner, values in scores.items()
    }
    if "iql" not in scores:
        return compared
    if "d3rlpy_iql" in scores:
        over_peer = difference(scores["iql"], scores["d3rlpy_iql"])
        compared["over_d3rlpy"] = over_peer
        compared["not_below_d3rlpy"] = over_peer["high"] >= 0
    if "bc" in scores:
        over_bc = difference(scores["iql"], scores["bc"])
        compared["over_bc"] = over_bc
        if mixed:
            compared["above_bc"] = over_bc["low"] > 0
    return compared


if __name__ == "__main__":
    main()
