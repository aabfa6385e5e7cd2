"""Teaches a robot to walk, for the datasets; runs in the peers' Python, not in the project's.

    python -m benchmarks._locomotion_sac ROBOT FOLDER STEPS EVERY

stable-baselines3's SAC with its own defaults, but for `WIDTHS` and `CHEAPER`. Every EVERY steps
FOLDER gets the policy, its score, and all steps so far in `replay.h5`. A policy is a
TorchScript module: observations (B, O) to mean and log std (B, 2 A) of the action before tanh.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC  # type: ignore[import-not-found]

from benchmarks._locomotion import (
    Episode,
    Floats,
    Policy,
    normalised,
    run_episodes,
    save_episodes,
)
from iql_ros.files import write_text

# Half the default's time a step: half its width and batch; as many updates, eight in a row.
WIDTHS = [128, 128]
CHEAPER = {"batch_size": 128, "train_freq": 8, "gradient_steps": 8}
SEED = 0
EVALUATION_SEED, EVALUATION_EPISODES = 10_000, 10


class Gaussian(torch.nn.Module):
    """The actor of SAC as plain tensors in, plain tensor out."""

    def __init__(self, model: SAC) -> None:
        super().__init__()
        self.actor = model.policy.actor

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Returns mean and log std side by side, (B, 2 A)."""
        mean, log_std, _ = self.actor.get_action_dist_params(observations)
        return torch.cat([mean, log_std], dim=1)


def main() -> None:
    robot, folder, steps, every = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model = _model(robot, folder)
    scores = json.loads((folder / "scores.json").read_text()) if model.num_timesteps else {}
    while model.num_timesteps < steps:
        model.learn(every, reset_num_timesteps=False)
        reached = model.num_timesteps
        example = torch.zeros(1, model.observation_space.shape[0])
        torch.jit.trace(Gaussian(model), example).save(str(folder / f"policy_{reached}.pt"))
        save_episodes(folder / "replay.h5", _replay(model))
        episodes = run_episodes(robot, _greedy(model), EVALUATION_EPISODES, EVALUATION_SEED)
        score = float(np.mean([episode.score for episode in episodes]))
        scores[str(reached)] = score
        model.save_replay_buffer(folder / "buffer.pkl.part")
        model.save(folder / "model.zip.part")
        write_text(folder / "scores.json", json.dumps(scores))
        os.replace(folder / "buffer.pkl.part", folder / "buffer.pkl")
        os.replace(folder / "model.zip.part", folder / "model.zip")
        print(f"{robot} {reached}: {normalised(robot, score):.1f}", flush=True)


def _model(robot: str, folder: Path) -> SAC:
    """Returns SAC as of the newest checkpoint, or new. It goes on from a fresh start state."""
    environment = gymnasium.make(robot)
    if (folder / "model.zip").exists():
        model = SAC.load(folder / "model.zip", env=environment, device="cpu")
        model.load_replay_buffer(folder / "buffer.pkl")
        last = model.num_timesteps - 1  # the interrupted episode ends here, not by a fall
        if not model.replay_buffer.dones[last, 0]:
            model.replay_buffer.dones[last, 0] = model.replay_buffer.timeouts[last, 0] = 1.0
        return model
    return SAC(
        "MlpPolicy",
        environment,
        **CHEAPER,
        policy_kwargs={"net_arch": WIDTHS, "optimizer_kwargs": {"fused": True}},
        seed=SEED,
        device="cpu",
    )


def _greedy(model: SAC) -> Policy:
    def act(observations: Floats) -> Floats:
        return model.predict(observations, deterministic=True)[0]

    return act


def _replay(model: SAC) -> list[Episode]:
    """Every whole episode so far. The buffer is larger than the run, so it is in time order."""
    buffer = model.replay_buffer
    count = model.num_timesteps
    done, timeouts = buffer.dones[:count, 0] > 0, buffer.timeouts[:count, 0] > 0
    ends = np.flatnonzero(done) + 1
    columns = {
        name: getattr(buffer, name)[:count, 0].astype(np.float32)
        for name in ("observations", "actions", "rewards", "next_observations")
    }
    return [
        Episode(**{name: a[i:j] for name, a in columns.items()}, fell=not timeouts[j - 1])
        for i, j in zip([0, *ends[:-1]], ends, strict=True)
    ]


if __name__ == "__main__":
    main()
