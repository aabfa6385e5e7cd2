"""Fitted Q evaluation (Le, Voloshin and Yue, 2019): what would this policy have earned?

    Q(s, a) <- r + gamma m Q_target(s', pi(s'))

No importance weights, so it works for policies without densities. It is biased where
pi leaves the data: there Q extrapolates. Several networks are fitted at once, each on its own
resample of the episodes (Hao et al., 2021), so that the spread between them is what
the choice of episodes does to the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Floats = NDArray[np.float32]
Q = Callable[[Floats], NDArray[np.float64]]
"""State-actions (K, I) to the values of M networks, (M, K)."""


@dataclass(frozen=True)
class FqeSettings:
    """How Q is fitted.

    Attributes:
        members: networks, each on a resample of the episodes.
        hidden: width of both hidden layers.
        steps: gradient updates.
        batch_size: transitions of one update, the same for all members.
        learning_rate: Adam's at the start; it falls to zero by a cosine.
        polyak: share of Q in each step of its target.
        seed: weights, resamples and batches. Runs compared under one seed share all three.
    """

    members: int = 5
    hidden: int = 64
    steps: int = 4_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    polyak: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Transitions:
    """What FQE learns from.

    Attributes:
        state_actions: normalised (s, a) as recorded, (N, I).
        next_state_actions: (s', pi(s')) of the policy that is judged, (N, I).
        rewards: (N,).
        masks: 0 at a terminal and 1 elsewhere, (N,).
        episode: number of each row's episode, ascending from 0, (N,).
    """

    state_actions: Floats
    next_state_actions: Floats
    rewards: Floats
    masks: Floats
    episode: NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """The values that rewards and discount allow at all; a target outside is set to the nearer."""

    low: float
    high: float

    @classmethod
    def of(cls, rewards: NDArray[np.floating], discount: float) -> Bounds:
        """From the extremes of the rewards: r / (1 - gamma), or 0 if an episode could just end."""
        horizon = 1 / (1 - discount)
        return cls(
            min(0.0, horizon * float(rewards.min())), max(0.0, horizon * float(rewards.max()))
        )


def fit_q(data: Transitions, discount: float, settings: FqeSettings | None = None) -> Q:
    """Returns Q of the policy whose actions `data` has at s'.

    Args:
        data: transitions.
        discount: gamma.
        settings: how.
    """
    settings = settings or FqeSettings()
    rng = np.random.default_rng(settings.seed)
    scale = _scale(data.rewards, discount)
    bounds = Bounds.of(data.rewards / scale, discount)
    weights = _episode_weights(data.episode, settings.members, rng)
    columns = [
        torch.from_numpy(np.ascontiguousarray(column, dtype=np.float32))
        for column in (data.state_actions, data.next_state_actions, data.rewards / scale)
    ]
    x, next_x, rewards = columns
    shrink = torch.from_numpy((discount * data.masks).astype(np.float32))
    # A fit finds its level last, at a rate of 1 - gamma: it starts where a constant Q would end.
    level = float(rewards.mean() / (1 - shrink.mean()))
    network = _Networks.create(x.shape[1], level, settings)
    target = network.copy()
    optimiser = torch.optim.Adam(network.parameters, lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for _ in range(settings.steps):
        rows = torch.from_numpy(rng.integers(len(x), size=settings.batch_size))
        with torch.no_grad():
            goal = rewards[rows] + shrink[rows] * target(next_x[rows])
            goal.clamp_(bounds.low, bounds.high)
        loss = (weights[:, rows] * (network(x[rows]) - goal).square()).mean(dim=1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        torch._foreach_lerp_(target.parameters, network.parameters, settings.polyak)

    @torch.no_grad()
    def q(state_actions: Floats) -> NDArray[np.float64]:
        values = target(torch.from_numpy(np.ascontiguousarray(state_actions, dtype=np.float32)))
        return scale * values.numpy().astype(np.float64)

    return q


def _scale(rewards: NDArray[np.floating], discount: float) -> float:
    """A size of values, by which rewards are divided so that the network's output is near 1."""
    spread = float(np.sqrt(np.mean(np.square(rewards, dtype=np.float64))))
    return max(spread / np.sqrt(1 - discount), 1e-9)


def _episode_weights(episode: NDArray[np.int64], members: int, rng: np.random.Generator) -> Tensor:
    """How often each row's episode was drawn by each member, mean 1, (M, N).

    A single member takes every episode once.
    """
    count = int(episode[-1]) + 1
    if members == 1:
        return torch.ones(1, len(episode))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=members)[:, episode]
    return torch.from_numpy((drawn / drawn.mean(axis=1, keepdims=True)).astype(np.float32))


@dataclass(frozen=True)
class _Networks:
    """M networks of two hidden ReLU layers, stacked: (B, I) to (M, B)."""

    parameters: list[Tensor]

    @classmethod
    def create(cls, inputs: int, level: float, settings: FqeSettings) -> _Networks:
        """Random weights of He's spread, but for the last layer, which gives `level`."""
        rng = torch.Generator().manual_seed(settings.seed)
        sizes = [inputs, settings.hidden, settings.hidden, 1]
        parameters = []
        for fan_in, fan_out in pairwise(sizes):
            weight = torch.randn(settings.members, fan_in, fan_out, generator=rng)
            weight *= 0.0 if fan_out == 1 else (2 / fan_in) ** 0.5
            bias = torch.full((settings.members, 1, fan_out), level if fan_out == 1 else 0.0)
            parameters += [weight, bias]
        return cls([p.requires_grad_() for p in parameters])

    def copy(self) -> _Networks:
        return _Networks([p.detach().clone() for p in self.parameters])

    def __call__(self, rows: Tensor) -> Tensor:
        w0, b0, w1, b1, w2, b2 = self.parameters
        x = functional.relu(torch.baddbmm(b0, rows.expand(len(w0), -1, -1), w0))
        x = functional.relu(torch.baddbmm(b1, x, w1))
        return (x * w2.mT).sum(dim=-1) + b2.squeeze(-1)
