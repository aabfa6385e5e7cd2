"""One trial of the quality benchmark: a learner, a file, a seed; its result stays on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._locomotion import Policy, as_policy, load_episodes, normalised, run_episodes
from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from training.learning.config import TrainConfig
from training.learning.train import train

LEARNERS = ("iql", "bc", "d3rlpy_iql")
REPOSITORY = Path(__file__).parents[1]
START_SEED = 20_000  # every policy is judged from the same start states


@dataclass(frozen=True)
class Trial:
    """What to train, on what, and how to judge it.

    Attributes:
        robot: as gymnasium calls it.
        dataset: one of its files.
        learner: of `LEARNERS`.
        steps: gradient updates.
        seed: of the learner.
        episodes: to judge by.
        peer_python: an interpreter that has d3rlpy; only that learner needs it.
    """

    robot: str
    dataset: Path
    learner: str
    steps: int
    seed: int
    episodes: int
    peer_python: Path | None

    @property
    def result(self) -> Path:
        """The file of the trial's result, beside the dataset."""
        name = f"{self.learner}_{self.steps}_{self.seed}_{self.episodes}.json"
        return self.dataset.with_suffix("") / name


def run_trial(trial: Trial) -> None:
    """Trains, judges, and writes the result; does nothing where there is one already."""
    if trial.result.exists():
        return
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="iql_ros_quality_") as folder:
        learn = _learn_peer if trial.learner == "d3rlpy_iql" else _learn_ours
        policy = learn(trial, Path(folder))
    trained_s = time.perf_counter() - started
    episodes = run_episodes(trial.robot, policy, trial.episodes, START_SEED)
    scores = [normalised(trial.robot, episode.score) for episode in episodes]
    result = {
        "scores": scores,
        "lengths": [len(episode) for episode in episodes],
        "trained_s": trained_s,
    }
    write_text(trial.result, json.dumps(result))
    mean = sum(scores) / len(scores)
    print(f"{trial.result}: {mean:.1f}, {trained_s:.0f} s", file=sys.stderr, flush=True)


def reward_scale(dataset: Path) -> float:
    """Returns 1000 / (best return - worst return), the IQL paper's scale for locomotion."""
    scores = [episode.score for episode in load_episodes(dataset)]
    return 1000.0 / (max(scores) - min(scores))


def _learn_ours(trial: Trial, folder: Path) -> Policy:
    config = TrainConfig(
        algorithm="bc" if trial.learner == "bc" else "iql",
        steps=trial.steps,
        seed=trial.seed,
        reward_scale=reward_scale(trial.dataset),
        held_out_fraction=0.0,  # d3rlpy holds out nothing either
    )
    run = train(trial.dataset, folder / "run", config, progress=lambda *_: None)
    return as_policy(run.policy)


def _learn_peer(trial: Trial, folder: Path) -> Policy:
    path = folder / "policy.pt"
    scale = reward_scale(trial.dataset)
    run_peer(
        trial.peer_python, "_quality_peer", trial.dataset, path, trial.steps, trial.seed, scale
    )
    return as_policy(torch.jit.load(str(path)))


def run_peer(python: Path | None, module: str, *arguments: object) -> None:
    """Runs a module of this folder in the peers' Python; its output goes to stderr.

    Raises:
        IqlRosError: there is no such Python.
        subprocess.CalledProcessError: the module failed.
    """
    if python is None or not python.exists():
        raise IqlRosError(
            f"--peer-python is {python}, needed is an interpreter with the peers: "
            f"python3.11 -m venv peers && peers/bin/pip install d3rlpy==2.8.1 "
            f"stable-baselines3==2.9.2 'gymnasium[mujoco]' mujoco==3.17.0 torch==2.13.0, "
            f"then --peer-python peers/bin/python"
        )
    # A worker blocks Ctrl-C, which the peer would inherit; it outlives a worker that is dropped.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # What rclpy's wheels set for this interpreter would mislead another.
    ours = ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    subprocess.run(
        [python, "-W", "ignore", "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=sys.stderr,
        check=True,
    )
