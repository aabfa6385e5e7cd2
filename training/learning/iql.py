"""Implicit Q-learning (Kostrikov, Nair and Levine, 2021), arXiv 2110.06169.

V is drawn towards an upper expectile of Q over the actions in the data, so no action
outside the data is ever evaluated; the policy imitates the data, weighted by exp(beta A).
The order within an update is the official implementation's: V first, then actor and
critics with the updated V, then the target critics.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.networks import Actor, TwinCritic, Value, create_actor


def value_loss(target_q: Tensor, v: Tensor, expectile: float) -> Tensor:
    """Returns E[|tau - 1(u < 0)| u^2], u = min Q(s, a) - V(s) (equation 5).

    Args:
        target_q: the smaller of the two target critics, shape (B,).
        v: V(s), shape (B,).
        expectile: tau.
    """
    u = target_q - v
    weight = (expectile - (u < 0).to(u.dtype)).abs()
    return (weight * u.square()).mean()


def critic_loss(
    q: Tensor, rewards: Tensor, masks: Tensor, next_v: Tensor, discount: float
) -> Tensor:
    """Returns E[(r + gamma m V(s') - Q(s, a))^2], summed over the two critics (equation 6).

    Args:
        q: Q1 and Q2, shape (2, B).
        rewards, masks, next_v: shape (B,); a mask is 0 at a terminal and 1 elsewhere.
        discount: gamma.
    """
    target = rewards + discount * masks * next_v
    return (target - q).square().mean(dim=1).sum()


def advantage_weights(advantage: Tensor, inverse_temperature: float, largest: float) -> Tensor:
    """Returns min(exp(beta A), largest), shape (B,)."""
    return torch.exp(inverse_temperature * advantage).clamp(max=largest)


def actor_loss(log_prob: Tensor, weights: Tensor) -> Tensor:
    """Returns -E[w log pi(a|s)] (equation 7); both arguments have shape (B,)."""
    return -(weights * log_prob).mean()


def cosine_decay(step: int, steps: int) -> float:
    """Returns the factor on the actor's learning rate: 1 at step 0, 0 at the last."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))


def descend(optimiser: Optimizer, loss: Tensor) -> None:
    """Takes one gradient step."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


class Iql(nn.Module):
    """The four networks of IQL, their optimisers, and the update."""

    loss_names: tuple[str, ...] = ("value_loss", "critic_loss", "actor_loss")

    def __init__(
        self, config: TrainConfig, observation_size: int, action_size: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.actor = create_actor(config, observation_size, action_size, rng)
        self.value = Value(observation_size, config.hidden, rng)
        self.critic = TwinCritic(observation_size + action_size, config.hidden, rng)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        # Neither actor nor critics feed the other: one backward and one optimiser serve both.
        both = [{"params": [*self.actor.parameters()]}, {"params": [*self.critic.parameters()]}]
        self.optimisers: dict[str, Optimizer] = {
            "value": Adam(self.value.parameters(), lr=config.learning_rate, fused=True),
            "actor_and_critic": Adam(both, lr=config.learning_rate, fused=True),
        }

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step on every network.

        Args:
            batch: B transitions.
            step: updates taken before this one; it sets the actor's learning rate.

        Returns:
            The losses that the step was taken on, in the order of `loss_names`, shape (3,).
        """
        with torch.no_grad():
            target_q = self.target_critic(batch.state_actions).amin(dim=0)
        of_value = value_loss(target_q, self.value(batch.observations), self.config.expectile)
        descend(self.optimisers["value"], of_value)

        of_critic, of_actor = self._critic_and_actor_losses(batch, target_q)
        optimiser = self.optimisers["actor_and_critic"]
        decay = cosine_decay(step, self.config.steps)
        optimiser.param_groups[0]["lr"] = self.config.learning_rate * decay
        descend(optimiser, of_critic + of_actor)

        torch._foreach_lerp_(
            [*self.target_critic.parameters()], [*self.critic.parameters()], self.config.polyak
        )
        return torch.stack([of_value, of_critic, of_actor]).detach()

    def _critic_and_actor_losses(self, batch: Batch, target_q: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        with torch.no_grad():
            advantage = target_q - self.value(batch.observations)
            next_v = self.value(batch.next_observations)
        q = self.critic(batch.state_actions)
        of_critic = critic_loss(q, batch.rewards, batch.masks, next_v, config.discount)
        weights = advantage_weights(
            advantage, config.inverse_temperature, config.advantage_weight_max
        )
        log_prob = self.actor.log_prob(self.actor(batch.observations), batch.actions)
        return of_critic, actor_loss(log_prob, weights)

    def deployed(self) -> Actor:
        """Returns the actor."""
        return self.actor

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the losses and what explains them, on transitions not trained on."""
        target_q = self.target_critic(batch.state_actions).amin(dim=0)
        v = self.value(batch.observations)
        of_critic, of_actor = self._critic_and_actor_losses(batch, target_q)
        error = (self.actor(batch.observations) - batch.actions).abs()
        return {
            "value_loss": value_loss(target_q, v, self.config.expectile).item(),
            "critic_loss": of_critic.item(),
            "actor_loss": of_actor.item(),
            "action_error": error.mean().item(),
            "advantage": (target_q - v).mean().item(),
            "value": v.mean().item(),
        }
