"""Behaviour cloning: the baseline that only imitates, on IQL's actor and loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.iql import cosine_decay, descend
from training.learning.networks import Actor, create_actor


def imitation_loss(log_prob: Tensor) -> Tensor:
    """Returns -E[log pi(a|s)] of log-likelihoods (B,)."""
    return -log_prob.mean()


class Bc(nn.Module):
    """The actor alone, its optimiser, and the update."""

    loss_names: tuple[str, ...] = ("actor_loss",)

    def __init__(
        self, config: TrainConfig, observation_size: int, action_size: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.actor = create_actor(config, observation_size, action_size, rng)
        self.optimisers: dict[str, Optimizer] = {
            "actor": Adam(self.actor.parameters(), lr=config.learning_rate, fused=True)
        }

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step; arguments and result as for `Iql.update`, shape (1,)."""
        loss = imitation_loss(self.actor.log_prob(self.actor(batch.observations), batch.actions))
        decay = cosine_decay(step, self.config.steps)
        self.optimisers["actor"].param_groups[0]["lr"] = self.config.learning_rate * decay
        descend(self.optimisers["actor"], loss)
        return loss.detach()[None]

    def deployed(self) -> Actor:
        """Returns the actor."""
        return self.actor

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the loss and the mean action error on transitions not trained on."""
        mean = self.actor(batch.observations)
        return {
            "actor_loss": imitation_loss(self.actor.log_prob(mean, batch.actions)).item(),
            "action_error": (mean - batch.actions).abs().mean().item(),
        }
