from __future__ import annotations

import numpy as np
import pytest
import torch

from training.learning.batch import Batch, unpack
from training.learning.bc import Bc
from training.learning.config import TrainConfig


def linear_task(rows: int = 256) -> Batch:
    """Actions that are half the first observation; nothing else matters."""
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32)
    columns = [observations, 0.5 * observations[:, :1], observations, np.ones((rows, 2))]
    return unpack(torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32)), 1)


@pytest.mark.parametrize("actor", ["gaussian", "deterministic"])
def test_cloning_learns_the_actions_of_the_data(actor: str) -> None:
    config = TrainConfig(
        algorithm="bc", hidden=(32, 32), steps=300, learning_rate=3e-3, actor=actor
    )
    bc, batch = Bc(config, 3, 1, torch.Generator().manual_seed(0)), linear_task()
    before = bc.evaluate(batch)

    for step in range(300):
        bc.update(batch, step)

    after = bc.evaluate(batch)
    assert after["actor_loss"] < before["actor_loss"]
    assert after["action_error"] < 0.02


def test_the_loss_is_the_mean_negative_log_likelihood() -> None:
    bc = Bc(TrainConfig(algorithm="bc", hidden=(8,)), 3, 1, torch.Generator().manual_seed(0))
    batch = linear_task()
    mean = bc.actor(batch.observations)
    density = torch.distributions.Normal(mean, 1.0).log_prob(batch.actions)

    loss = bc.update(batch, step=0)

    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(-density.mean().item(), rel=1e-6)
