"""Conservative Q-learning, CQL(H) (Kumar et al., 2020), arXiv 2006.04779: a baseline.

SAC on the dataset, with a penalty that pushes Q down where the policy could go and up where
the data are. As in the authors' code, the log-sum-exp over actions is estimated from three
proposals by importance sampling, and the backup leaves the entropy out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.iql import critic_loss, descend
from training.learning.networks import LOG_STD_MAX, LOG_STD_MIN, Mlp, TwinCritic, branch


def conservative_loss(q_proposed: Tensor, log_density: Tensor, q: Tensor) -> Tensor:
    """Returns E[log sum_a exp Q(s, a) - Q(s, a_data)], summed over the critics (equation 4).

    Args:
        q_proposed: Q of K actions drawn for each state, shape (2, B, K).
        log_density: of each under what it was drawn from, shape (B, K).
        q: Q of the data's actions, shape (2, B).
    """
    log_sum = torch.logsumexp(q_proposed - log_density, dim=-1) - math.log(q_proposed.shape[-1])
    return (log_sum - q).mean(dim=1).sum()


def soft_actor_loss(log_prob: Tensor, q: Tensor, temperature: Tensor) -> Tensor:
    """Returns E[temperature log pi(a|s) - Q(s, a)] for drawn actions; shapes (B,)."""
    return (temperature * log_prob - q).mean()


class SoftActor(nn.Module):
    """SAC's actor: tanh of a Gaussian whose mean and std both depend on the state."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: TrainConfig,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [observation_size, *config.hidden, 2 * action_size]
        self.layers = Mlp(sizes, rng, layer_norm=config.layer_norm in ("actor", "all"))

    def forward(self, observations: Tensor) -> Tensor:
        """Returns the most likely actions before tanh, through tanh, (B, A): what is deployed."""
        return torch.tanh(self.layers(observations).chunk(2, dim=-1)[0])

    def draw(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws K actions for each state.

        Args:
            observations: (B, O).
            noise: standard normal, (B, K, A).

        Returns:
            Actions in (-1, 1), (B, K, A), and their log-densities, (B, K).
        """
        mean, log_std = self.layers(observations)[:, None].chunk(2, dim=-1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        before = mean + log_std.exp() * noise
        log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2), in a form that stays exact for large x
        log_slope = 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))
        return torch.tanh(before), (log_normal - log_slope).sum(dim=-1)


class Cql(nn.Module):
    """Twin critics, SAC's actor and its temperature, their optimisers, and the update."""

    loss_names: tuple[str, ...] = ("critic_loss", "conservative_loss", "actor_loss")

    def __init__(
        self, config: TrainConfig, observation_size: int, action_size: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.action_size = action_size
        self.actor = SoftActor(observation_size, action_size, config, rng)
        norm = config.layer_norm in ("critic", "all")
        pair_size = observation_size + action_size
        self.critic = TwinCritic(pair_size, config.hidden, rng, layer_norm=norm)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        rate = config.learning_rate
        self.optimisers: dict[str, Optimizer] = {
            "critic": Adam(self.critic.parameters(), lr=rate, fused=True),
            # The authors give their actor a third of the critics' rate.
            "actor": Adam(self.actor.parameters(), lr=rate / 3.0, fused=True),
            "temperature": Adam([self.log_temperature], lr=rate, fused=True),
        }
        self.generators: dict[str, torch.Generator] = {"actions": branch(rng)}

    def update(self, batch: Batch, step: int) -> Tensor:
        """Takes one step; arguments and result as for `Iql.update`, shape (3,)."""
        noise = self.generators["actions"]
        of_critic, penalty = self._critic_losses(batch, noise)
        descend(self.optimisers["critic"], of_critic + self.config.conservative_weight * penalty)

        actions, log_prob = self._draw(batch.observations, 1, noise)
        q = self._q(self.critic, batch.observations, actions).amin(dim=0)[:, 0]
        temperature = self.log_temperature.exp().detach()
        of_actor = soft_actor_loss(log_prob[:, 0], q, temperature)
        descend(self.optimisers["actor"], of_actor)
        # The temperature rises while the entropy is below minus the number of action components.
        shortfall = (log_prob.detach() - self.action_size).mean()
        descend(self.optimisers["temperature"], -self.log_temperature * shortfall)

        torch._foreach_lerp_(
            [*self.target_critic.parameters()], [*self.critic.parameters()], self.config.polyak
        )
        return torch.stack([of_critic, penalty, of_actor]).detach()

    def _critic_losses(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        observations, k = batch.observations, self.config.conservative_samples
        shape = (len(observations), k, self.action_size)
        with torch.no_grad():
            following, next_log_prob = self._draw(batch.next_observations, k, noise)
            next_q = self._q(self.target_critic, batch.next_observations, following[:, :1])
            here, log_prob = self._draw(observations, k, noise)
            anywhere = 2.0 * torch.rand(shape, dtype=here.dtype, generator=noise) - 1.0
            log_uniform = torch.full(shape[:2], -self.action_size * math.log(2.0)).to(log_prob)
            proposed = torch.cat([anywhere, here, following], dim=1)
            log_density = torch.cat([log_uniform, log_prob, next_log_prob], dim=1)
        q = self.critic(batch.state_actions)
        next_v = next_q.amin(dim=0)[:, 0]
        of_critic = critic_loss(q, batch.rewards, batch.masks, next_v, self.config.discount)
        q_proposed = self._q(self.critic, observations, proposed)
        return of_critic, conservative_loss(q_proposed, log_density, q)

    def _draw(self, observations: Tensor, k: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        shape = (len(observations), k, self.action_size)
        normal = torch.randn(shape, dtype=observations.dtype, generator=noise)
        return self.actor.draw(observations, normal)

    def _q(self, critic: TwinCritic, observations: Tensor, actions: Tensor) -> Tensor:
        """Returns both critics' values (2, B, K) of K actions (B, K, A) for each state (B, O)."""
        k = actions.shape[1]
        states = observations[:, None].expand(-1, k, -1)
        return critic(torch.cat([states, actions], dim=2).flatten(0, 1)).unflatten(1, (-1, k))

    def deployed(self) -> SoftActor:
        """Returns the actor."""
        return self.actor

    def adapt(self, held_out: Mapping[str, float]) -> None:
        """Does nothing: nothing here depends on held-out losses."""

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the losses and what explains them, on transitions not trained on."""
        # A generator of its own: how often one looks must not change what is learnt.
        of_critic, penalty = self._critic_losses(batch, torch.Generator().manual_seed(0))
        action = self.actor(batch.observations)
        of_policy = self._q(self.target_critic, batch.observations, action[:, None])
        return {
            "critic_loss": of_critic.item(),
            "conservative_loss": penalty.item(),
            "action_error": (action - batch.actions).abs().mean().item(),
            "policy_value": of_policy.amin(dim=0).mean().item(),
            "temperature": self.log_temperature.exp().item(),
        }
