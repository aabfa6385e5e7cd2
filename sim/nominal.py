"""Lets a bundle drive nominal episodes in lockstep, and writes how they went.

`python -m sim.nominal BUNDLE --world diffbot --episodes 100 --results results.json`
leaves the same file as `sim.node`, which does so over ROS in real time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from iql_ros.files import write_text
from sim.gate import controller_of, run_suite
from sim.judge import Outcome
from sim.scenarios import Scenario, Suite

NOMINAL = "nominal"


def drive(
    bundle: Path,
    world: str,
    episodes: int,
    seed: int,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """How `episodes` episodes went in which nothing unusual happens.

    Args:
        bundle: its folder.
        world: a world file, or the name of a shipped world.
        seed: of starts and noise; two bundles with the same seed meet the same.
        jobs: processes.
        progress: called with the episodes done and all episodes.
    """
    scenario = Scenario(description="Nothing unusual happens.", episodes=episodes)
    suite = Suite(format=1, suite=NOMINAL, world=world, scenarios={NOMINAL: scenario})
    make_controller = partial(controller_of, bundle.absolute())
    run = run_suite(suite, seed, make_controller, jobs=jobs, progress=progress)
    return [episode.outcome for episode in run.episodes[NOMINAL]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--world", required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, required=True)
    said = parser.parse_args()
    outcomes = drive(
        *(said.bundle, said.world, said.episodes, said.seed),
        jobs=said.jobs,
        progress=lambda done, total: print(f"{done} of {total} episodes", flush=True),
    )
    content = {"seed": said.seed, "episodes": [asdict(outcome) for outcome in outcomes]}
    write_text(said.results, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
