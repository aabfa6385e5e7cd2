"""The three kinds of D4RL files of a robot, from one run of SAC: `make_datasets`.

*medium* is rollouts of the first policy with a third of the best one's score; *medium-replay*
is all that SAC had seen until then; *medium-expert* is the medium file and as many steps of
the best policy. Actions are drawn from the policy's distribution, as in D4RL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks._locomotion import (
    Episode,
    Floats,
    Policy,
    load_episodes,
    normalised,
    run_steps,
    save_episodes,
)
from iql_ros.errors import IqlRosError
from iql_ros.files import write_text

KINDS = ("medium", "medium-replay", "medium-expert")
MEDIUM_SHARE = 1 / 3
ROLLOUT_SEED = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What a robot's three files were made from.

    Attributes:
        robot: as gymnasium calls it.
        sac_steps: checkpoints up to here were considered.
        transitions: at least so many are in *medium*, and twice as many in *medium-expert*.
        medium_step, expert_step: the checkpoints taken.
        medium_score, expert_score: their normalised returns, acting without noise.
        rows: transitions by kind of file.
        file_score: mean normalised return of the episodes by kind of file.
    """

    robot: str
    sac_steps: int
    transitions: int
    medium_step: int
    expert_step: int
    medium_score: float
    expert_score: float
    rows: dict[str, int]
    file_score: dict[str, float]


def make_datasets(folder: Path, robot: str, sac_steps: int, transitions: int) -> Recipe:
    """Writes KIND.h5 into `folder`, which has SAC's own folder in `sac`."""
    scores = {
        int(step): normalised(robot, score)
        for step, score in json.loads((folder / "sac" / "scores.json").read_text()).items()
        if int(step) <= sac_steps
    }
    medium_step, expert_step = choose(scores)
    rng = np.random.default_rng(ROLLOUT_SEED)
    medium, expert = (
        run_steps(robot, _sampled(folder / "sac" / f"policy_{step}.pt", rng), transitions, seed)
        for step, seed in ((medium_step, ROLLOUT_SEED), (expert_step, 2 * ROLLOUT_SEED))
    )
    replay = until(load_episodes(folder / "sac" / "replay.h5"), medium_step)
    files = dict(zip(KINDS, (medium, replay, medium + expert), strict=True))
    for kind, episodes in files.items():
        save_episodes(folder / f"{kind}.h5", episodes)
    recipe = Recipe(
        robot,
        sac_steps,
        transitions,
        medium_step,
        expert_step,
        scores[medium_step],
        scores[expert_step],
        {kind: sum(map(len, episodes)) for kind, episodes in files.items()},
        {
            kind: normalised(robot, float(np.mean([episode.score for episode in episodes])))
            for kind, episodes in files.items()
        },
    )
    write_text(folder / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n")
    return recipe


def load_recipe(folder: Path, sac_steps: int, transitions: int) -> Recipe | None:
    """Returns the recipe of the files in `folder`, None where they are not made yet.

    Raises:
        IqlRosError: they were made at another scale.
    """
    path = folder / "recipe.json"
    if not path.exists():
        return None
    recipe = Recipe(**json.loads(path.read_text()))
    if (recipe.sac_steps, recipe.transitions) != (sac_steps, transitions):
        raise IqlRosError(
            f"{folder} was made with --sac-steps {recipe.sac_steps} and --transitions "
            f"{recipe.transitions}, asked for are {sac_steps} and {transitions}: "
            f"choose another --out"
        )
    return recipe


def choose(scores: dict[int, float]) -> tuple[int, int]:
    """Returns the checkpoints (medium, expert) of normalised scores by step."""
    expert_step = max(scores, key=lambda step: scores[step])
    enough = MEDIUM_SHARE * scores[expert_step]
    return next(step for step in sorted(scores) if scores[step] >= enough), expert_step


def until(episodes: Sequence[Episode], step: int) -> list[Episode]:
    """Returns the episodes that were over by the step."""
    ends = np.cumsum([len(episode) for episode in episodes])
    return [episode for episode, end in zip(episodes, ends, strict=True) if end <= step]


def _sampled(path: Path, rng: np.random.Generator) -> Policy:
    """Returns SAC's policy with its noise."""
    gaussian = torch.jit.load(str(path))

    def act(observations: Floats) -> Floats:
        with torch.no_grad():
            mean, log_std = np.split(gaussian(torch.from_numpy(observations)).numpy(), 2, axis=1)
        noise = rng.standard_normal(mean.shape, np.float32)
        return np.tanh(mean + np.exp(log_std) * noise)

    return act


class _Untrained(torch.nn.Module):
    """Acts at random: mean and log std do not depend on what is observed."""

    row: torch.Tensor

    def __init__(self, action_size: int, log_std: float) -> None:
        super().__init__()
        self.register_buffer("row", torch.tensor([[0.0] * action_size + [log_std] * action_size]))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(observations[:, :1]) + self.row


def write_stand_in(folder: Path, robot: str, observation_size: int, action_size: int) -> None:
    """Writes what SAC would leave in `folder`, by policies that never learnt anything."""
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, observation_size)
    for step, log_std in ((1000, 0.0), (2000, -1.0)):
        module = _Untrained(action_size, log_std)
        torch.jit.trace(module, example).save(str(folder / f"policy_{step}.pt"))
    policy = _sampled(folder / "policy_1000.pt", np.random.default_rng(0))
    save_episodes(folder / "replay.h5", run_steps(robot, policy, 1000, seed=0))
    (folder / "scores.json").write_text(json.dumps({"1000": 100.0, "2000": 200.0}))
