"""Behaviour cloning: the baseline that only imitates, on IQL's actor and loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.learning.actors import acting, create_policy
from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.iql import cosine_decay, descend
from training.learning.networks import branch


def imitation_loss(log_prob: Tensor) -> Tensor:
    """Returns -E[log pi(a|s)] of log-likelihoods (B,)."""
    return -log_prob.mean()


class Bc(nn.Module):
    """The actor alone, its optimiser, and the update."""

    loss_names: tuple[str, ...] = ("actor_loss",)

    def __init__(
        self,
        config: TrainConfig,
        observation_size: int,
        action_size: int,
        rng: torch.Generator,
        choices: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.actor = create_policy(config, observation_size, action_size, rng, choices)
        self.optimisers: dict[str, Optimizer] = {
            "actor": Adam(self.actor.parameters(), lr=config.learning_rate, fused=True)
        }
        self.generators: dict[str, torch.Generator] = {"dropout": branch(rng)}

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step; arguments and result as for `Iql.update`, shape (1,)."""
        mean = self.actor(batch.observations, self.generators["dropout"])
        loss = imitation_loss(self.actor.log_prob(mean, batch.actions))
        decay = cosine_decay(step, self.config.steps)
        self.optimisers["actor"].param_groups[0]["lr"] = self.config.learning_rate * decay
        descend(self.optimisers["actor"], loss)
        return loss.detach()[None]

    def deployed(self) -> nn.Module:
        """Returns what acts."""
        return acting(self.actor, None, self.config)

    def adapt(self, held_out: Mapping[str, float]) -> None:
        """Does nothing: nothing here depends on held-out losses."""

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the loss and the mean action error on transitions not trained on."""
        log_prob = self.actor.log_prob(self.actor(batch.observations), batch.actions)
        action = self.deployed()(batch.observations).clamp(-1.0, 1.0)
        return {
            "actor_loss": imitation_loss(log_prob).item(),
            "action_error": (action - batch.actions).abs().mean().item(),
        }
