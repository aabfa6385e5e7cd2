"""Acting by chance: the same networks, with noise as a second input.

Noise (B, K) are independent standard normal numbers; the graph makes of them what it needs.
Where they come from is for `iql_ros.bundles.noise` to say.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.learning.config import ConfigError
from training.learning.discrete import CategoricalActor, GreedyPolicy
from training.learning.networks import LOG_STD_MAX, LOG_STD_MIN, Actor
from training.learning.sampled import SampledPolicy

EDGE = 1e-6
"""Uniform numbers keep so far off 0 and 1, where logarithms end."""


class GaussianDraw(nn.Module):
    """Acts by mean + std z, clipped to [-1, 1]."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor
        self.noise_size = actor.log_std.numel()

    def forward(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Returns actions (B, A) for observations (B, O) and noise (B, A)."""
        std = self.actor.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
        return (self.actor(observations) + std * noise).clamp(-1.0, 1.0)


class SoftmaxDraw(nn.Module):
    """Acts by one of K choices with its probability: the largest of logits and Gumbel noise."""

    def __init__(self, actor: CategoricalActor) -> None:
        super().__init__()
        self.actor = actor
        self.noise_size = len(actor.choices)

    def forward(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Returns actions (B, 1) for observations (B, O) and noise (B, K)."""
        scores = self.actor(observations) + gumbel(uniform(noise))
        return self.actor.choices[scores.argmax(dim=-1)][:, None]


class SampledDraw(nn.Module):
    """Acts by choice among samples that are drawn anew for each observation."""

    def __init__(self, policy: SampledPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.rounds, self.samples, self.actions = policy.normal.shape
        scored = self.rounds if policy.selection == "drawn" else 0
        places = self.rounds * self.samples * self.actions
        self.sizes = [self.samples, places, scored * self.samples]
        self.noise_size = sum(self.sizes)

    def forward(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Returns actions (B, A) for observations (B, O) and noise (B, K)."""
        parts, places, scores = noise.split(self.sizes, dim=1)
        normal = places.unflatten(1, (self.rounds, self.samples, self.actions)).transpose(0, 1)
        extra = self.policy.gumbel
        if self.policy.selection == "drawn":
            extra = gumbel(uniform(scores)).unflatten(1, (self.rounds, self.samples))
            extra = extra.transpose(0, 1)
        return self.policy.choose(observations, uniform(parts), normal, extra)


def drawing(acting: nn.Module) -> GaussianDraw | SoftmaxDraw | SampledDraw:
    """Returns what draws its actions, of what acts by the likeliest or the best.

    Raises:
        ConfigError: there is nothing to draw from.
    """
    if isinstance(acting, GreedyPolicy):
        return SoftmaxDraw(acting.actor)
    if isinstance(acting, SampledPolicy):
        return SampledDraw(acting)
    if isinstance(acting, Actor) and acting.log_std.requires_grad:
        return GaussianDraw(acting)
    raise ConfigError(
        "a stochastic policy is asked for, but the run's actor is deterministic: it has no spread "
        "to draw from; export without --stochastic, or train with actor: gaussian"
    )


def uniform(normal: Tensor) -> Tensor:
    """Returns numbers of (0, 1), as even as `normal` are normal."""
    return (0.5 * (1.0 + torch.erf(normal / math.sqrt(2.0)))).clamp(EDGE, 1.0 - EDGE)


def gumbel(uniform: Tensor) -> Tensor:
    """Returns Gumbel noise: the largest of logits plus it is a draw from their softmax."""
    return -torch.log(-torch.log(uniform))
