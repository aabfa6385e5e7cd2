"""The robots of the quality benchmark: whole episodes of a policy, its score, and D4RL's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from training.datasets.file import COLUMNS, write_dataset

Floats = NDArray[np.float32]
Policy = Callable[[Floats], Floats]
"""Observations (E, O) to actions (E, A), both float32: one row for each running episode."""

# Mean return of a random and of an expert policy, as D4RL publishes them for the v2 robots. The
# v5 robots end episodes and reward survival a little otherwise: a scale, not a comparison.
REFERENCE_RETURNS = {"Hopper-v5": (-20.27, 3234.3), "Walker2d-v5": (1.63, 4592.3)}
TOGETHER = 10  # episodes that run side by side, so that one matrix product serves them all


@dataclass(frozen=True)
class Episode:
    """T steps until the robot fell or its time was up.

    Attributes:
        observations, next_observations: (T, O); the last one is what truly came after the end.
        actions: (T, A).
        rewards: (T,).
        fell: whether the end is a terminal; a timeout otherwise.
    """

    observations: Floats
    actions: Floats
    rewards: Floats
    next_observations: Floats
    fell: bool

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def score(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))


def normalised(robot: str, score: float) -> float:
    """Returns 100 (R - random) / (expert - random), D4RL's scale."""
    random, expert = REFERENCE_RETURNS[robot]
    return 100.0 * (score - random) / (expert - random)


def run_episodes(robot: str, policy: Policy, count: int, seed: int) -> list[Episode]:
    """Returns `count` whole episodes; episode i starts from `seed + i`."""
    episodes: list[Episode] = []
    for first in range(0, count, TOGETHER):
        seeds = range(seed + first, seed + min(first + TOGETHER, count))
        episodes += _side_by_side(robot, policy, seeds)
    return episodes


def run_steps(robot: str, policy: Policy, steps: int, seed: int) -> list[Episode]:
    """Returns the fewest whole episodes that have at least `steps` steps together."""
    episodes: list[Episode] = []
    while sum(map(len, episodes)) < steps:
        episodes += run_episodes(robot, policy, TOGETHER, seed + len(episodes))
    while sum(map(len, episodes[:-1])) >= steps:
        episodes.pop()
    return episodes


def _side_by_side(robot: str, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
    environments = [gymnasium.make(robot) for _ in seeds]
    starts = [env.reset(seed=seed)[0] for env, seed in zip(environments, seeds, strict=True)]
    observations = np.array(starts, np.float32)
    rows: list[list[tuple[Floats, Floats, float, Floats]]] = [[] for _ in seeds]
    fell = [False] * len(seeds)
    running = list(range(len(seeds)))
    while running:
        actions = policy(observations[running])
        for i, action in zip(tuple(running), actions, strict=True):
            following, reward, terminal, timeout, _ = environments[i].step(action)
            following = following.astype(np.float32)
            rows[i].append((observations[i].copy(), action, float(reward), following))
            observations[i] = following
            if terminal or timeout:
                fell[i] = bool(terminal)
                running.remove(i)
    for environment in environments:
        environment.close()
    return [_episode(steps, end) for steps, end in zip(rows, fell, strict=True)]


def _episode(steps: list[tuple[Floats, Floats, float, Floats]], fell: bool) -> Episode:
    observations, actions, rewards, following = zip(*steps, strict=True)
    return Episode(
        np.array(observations),
        np.array(actions),
        np.array(rewards, np.float32),
        np.array(following),
        fell,
    )


def save_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Writes D4RL's flat layout, with `next_observations`; replaces an earlier file."""
    ends = np.cumsum([len(episode) for episode in episodes]) - 1
    terminals, timeouts = np.zeros((2, ends[-1] + 1), bool)
    terminals[ends] = [episode.fell for episode in episodes]
    timeouts[ends] = ~terminals[ends]
    columns: dict[str, NDArray] = {"terminals": terminals, "timeouts": timeouts}
    for name in ("observations", "actions", "rewards", "next_observations"):
        columns[name] = np.concatenate([getattr(episode, name) for episode in episodes])
    write_dataset(path, columns, infos={}, attributes={}, force=True)


def load_episodes(path: Path) -> list[Episode]:
    """Reads what `save_episodes` wrote."""
    with h5py.File(path) as file:
        columns = {name: file[name][()] for name in COLUMNS}
    terminals, timeouts = columns.pop("terminals"), columns.pop("timeouts")
    ends = np.flatnonzero(terminals | timeouts) + 1
    starts = [0, *ends[:-1]]
    return [
        Episode(**{name: a[i:j] for name, a in columns.items()}, fell=bool(terminals[j - 1]))
        for i, j in zip(starts, ends, strict=True)
    ]


def as_policy(module: Callable[[torch.Tensor], torch.Tensor]) -> Policy:
    """Returns a torch module, observations to actions, as a policy."""

    def act(observations: Floats) -> Floats:
        with torch.no_grad():
            return module(torch.from_numpy(observations)).numpy()

    return act
