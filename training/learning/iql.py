"""Implicit Q-learning (Kostrikov, Nair and Levine, 2021), arXiv 2110.06169.

V is drawn towards an upper expectile of Q over the actions in the data, so no action
outside the data is ever evaluated; the policy imitates the data, weighted by exp(beta A).
The order within an update is the official implementation's: V first, then actor and
critics with the updated V, then the target critics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from training.learning.actors import acting, create_critic, create_policy
from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.expectile import LED, LedExpectile, annealed_expectile
from training.learning.networks import Value, branch

# States whose actions are looked for in one go: each may have hundreds of samples.
EVALUATED_AT_ONCE = 512


def value_loss(target_q: Tensor, v: Tensor, expectile: float | Tensor) -> Tensor:
    """Returns E[|tau - 1(u < 0)| u^2], u = min Q(s, a) - V(s) (equation 5).

    Args:
        target_q: the smaller of the two target critics, shape (B,).
        v: V(s), shape (B,).
        expectile: tau, a number.
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
        norm = config.layer_norm in ("critic", "all")
        self.value = Value(observation_size, config.hidden, rng, layer_norm=norm)
        self.critic = create_critic(config, observation_size, action_size, rng, choices)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        # Neither actor nor critics feed the other: one backward and one optimiser serve both.
        both = [{"params": [*self.actor.parameters()]}, {"params": [*self.critic.parameters()]}]
        self.optimisers: dict[str, Optimizer] = {
            "value": Adam(self.value.parameters(), lr=config.learning_rate, fused=True),
            "actor_and_critic": Adam(both, lr=config.learning_rate, fused=True),
        }
        self.generators: dict[str, torch.Generator] = {"dropout": branch(rng)}
        led = config.expectile_schedule in LED
        self.led_expectile = LedExpectile(config) if led else None

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
        of_value = value_loss(target_q, self.value(batch.observations), self.expectile(step))
        descend(self.optimisers["value"], of_value)
        if self.led_expectile is not None:
            self.led_expectile.count(of_value)

        dropout = self.generators["dropout"]
        of_critic, of_actor = self._critic_and_actor_losses(batch, target_q, dropout)
        if step >= self.config.value_warm_up:
            self._step_critic_and_actor(of_critic + of_actor, step)
        return torch.stack([of_value, of_critic, of_actor]).detach()

    def expectile(self, step: int) -> float | Tensor:
        """Returns tau for the update after `step` others."""
        if self.led_expectile is not None:
            return self.led_expectile.tau
        if self.config.expectile_schedule == "annealed":
            return annealed_expectile(self.config, step)
        return self.config.expectile

    def _critic_and_actor_losses(
        self, batch: Batch, target_q: Tensor, dropout: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        with torch.no_grad():
            advantage = target_q - self.value(batch.observations)
            next_v = self.value(batch.next_observations)
        q = self.critic(batch.state_actions)
        of_critic = critic_loss(q, batch.rewards, batch.masks, next_v, config.discount)
        # A model of the behaviour, from which actions are sampled, has to imitate all of it.
        beta = 0.0 if config.extraction == "sampled" else config.inverse_temperature
        weights = advantage_weights(advantage, beta, config.advantage_weight_max)
        log_prob = self.actor.log_prob(self.actor(batch.observations, dropout), batch.actions)
        return of_critic, actor_loss(log_prob, weights)

    def _step_critic_and_actor(self, loss: Tensor, step: int) -> None:
        optimiser = self.optimisers["actor_and_critic"]
        decay = cosine_decay(step, self.config.steps)
        optimiser.param_groups[0]["lr"] = self.config.learning_rate * decay
        descend(optimiser, loss)
        torch._foreach_lerp_(
            [*self.target_critic.parameters()], [*self.critic.parameters()], self.config.polyak
        )

    def deployed(self) -> nn.Module:
        """Returns what acts: the actor, or the choice among its samples."""
        return acting(self.actor, self.target_critic, self.config)

    def adapt(self, held_out: Mapping[str, float]) -> None:
        """Lets a led expectile look at the newest held-out losses."""
        if self.led_expectile is not None:
            self.led_expectile.look(held_out)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the losses and what explains them, on transitions not trained on."""
        target_q = self.target_critic(batch.state_actions).amin(dim=0)
        v = self.value(batch.observations)
        expectile = self.expectile(self.config.steps)
        of_critic, of_actor = self._critic_and_actor_losses(batch, target_q)
        policy = self.deployed()
        parts = batch.observations.split(EVALUATED_AT_ONCE)
        action = torch.cat([policy(part) for part in parts]).clamp(-1.0, 1.0)
        of_policy = self.target_critic(torch.cat([batch.observations, action], dim=1)).amin(dim=0)
        return {
            "value_loss": value_loss(target_q, v, expectile).item(),
            "critic_loss": of_critic.item(),
            "actor_loss": of_actor.item(),
            "action_error": (action - batch.actions).abs().mean().item(),
            "advantage": (target_q - v).mean().item(),
            "value": v.mean().item(),
            "policy_value": of_policy.mean().item(),
            "expectile": float(expectile),
        }
