"""The networks: one value function, two critics in one, an actor, and what is deployed.

Hidden layers are ReLU; weights start orthogonal with gain sqrt(2), biases at zero, as in
the official implementation. Kernels of the stacked critics are (critic, in, out).
Dropout happens where a call is given a generator for it, and nowhere else, so there is no
mode to forget: what is evaluated, exported and deployed is without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from training.learning.config import TrainConfig

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them: (B, sizes[0]) -> (B, sizes[-1])."""

    def __init__(
        self,
        sizes: Sequence[int],
        generator: torch.Generator,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        *hidden, (last_inputs, outputs) = pairwise(sizes)
        for inputs, width in hidden:
            layers.append(_linear(inputs, width, generator))
            if layer_norm:
                layers.append(nn.LayerNorm(width))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers, _linear(last_inputs, outputs, generator))
        self.dropout = dropout

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Returns the output (B, sizes[-1]); hidden units drop out by `noise`, if given."""
        for layer in self:
            x = layer(x)
            if noise is not None and self.dropout and isinstance(layer, nn.ReLU):
                x = drop_out(x, self.dropout, noise)
        return x


def drop_out(x: Tensor, share: float, noise: torch.Generator) -> Tensor:
    """Returns x with this share of its entries 0 and the others scaled to the same mean."""
    kept = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=noise) >= share
    return x * kept / (1.0 - share)


class Value(nn.Module):
    """V(s): observations (B, O) -> (B,)."""

    def __init__(
        self,
        observation_size: int,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers = Mlp([observation_size, *hidden, 1], rng, layer_norm=layer_norm)

    def forward(self, observations: Tensor) -> Tensor:
        """Returns V of each observation, shape (B,)."""
        return self.layers(observations).squeeze(-1)


class TwinCritic(nn.Module):
    """Q1(s, a) and Q2(s, a) at once: state-action rows (B, O + A) -> (2, B).

    The two networks are stacked, so each layer is one batched matrix product.
    """

    def __init__(
        self,
        input_size: int,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        sizes = [input_size, *hidden, 1]
        self.weights = nn.ParameterList(torch.empty(2, i, o) for i, o in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(2, 1, o) for o in sizes[1:])
        normed = hidden if layer_norm else ()
        self.gains = nn.ParameterList(torch.ones(2, 1, o) for o in normed)
        self.offsets = nn.ParameterList(torch.zeros(2, 1, o) for o in normed)
        for weight in self.weights:
            for one_critic in weight.detach():
                _orthogonal(one_critic, rng)

    def forward(self, state_actions: Tensor) -> Tensor:
        """Returns both critics' values, shape (2, B)."""
        *hidden, (last_weight, last_bias) = zip(self.weights, self.biases, strict=True)
        x = state_actions.expand(2, -1, -1)
        for i, (weight, bias) in enumerate(hidden):
            x = torch.baddbmm(bias, x, weight)
            if len(self.gains):
                normed = functional.layer_norm(x, x.shape[-1:])
                x = torch.addcmul(self.offsets[i], normed, self.gains[i])
            x = functional.relu(x, inplace=True)
        # A batched product with one output column takes 3.5 times as long as this sum.
        return (x * last_weight.mT).sum(dim=-1) + last_bias.squeeze(-1)


class Actor(nn.Module):
    """A Gaussian policy: mean tanh(net(s)) in (-1, 1), std that does not depend on s.

    A deterministic actor keeps std 1, so that its negative log-likelihood is half the
    squared error up to a constant. An unsquashed one has the mean net(s), which may lie
    outside (-1, 1): where it acts, `DeployedPolicy` clips it.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        learn_std: bool = True,
        squash: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [observation_size, *hidden, action_size]
        self.layers = Mlp(sizes, rng, layer_norm=layer_norm, dropout=dropout)
        self.log_std = nn.Parameter(torch.zeros(action_size), requires_grad=learn_std)
        self.squash = squash

    def forward(self, observations: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Returns the mean actions (B, A); hidden units drop out by `noise`, if given."""
        mean = self.layers(observations, noise)
        return torch.tanh(mean) if self.squash else mean

    def log_prob(self, mean: Tensor, actions: Tensor) -> Tensor:
        """Returns log pi(a|s), shape (B,), of actions (B, A) where the policy's mean is `mean`."""
        log_std = self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        deviation = (actions - mean) * torch.exp(-log_std)
        constant = 0.5 * math.log(2 * math.pi) * mean.shape[-1]
        return -0.5 * deviation.square().sum(dim=-1) - log_std.sum() - constant


class DeployedPolicy(nn.Module):
    """What runs on the robot: SI observation (B, O) -> SI action (B, A), both float32.

    Normalisation, tanh and the scaling to the action limits are inside. The action never
    leaves [low, high], not even by a rounding. A policy that draws is given its noise (B, K).
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, acting: nn.Module, mean: ArrayLike, std: ArrayLike, low: ArrayLike, high: ArrayLike
    ) -> None:
        super().__init__()
        self.acting = acting
        for name, values in (("mean", mean), ("std", std), ("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, observation: Tensor, *noise: Tensor) -> Tensor:
        """Returns the SI action of each SI observation, shape (B, A)."""
        unit = self.acting((observation - self.mean) / self.std, *noise)
        # Half of the range is a constant of the graph; halving is exact, so it may be done first.
        action = self.low + (unit + 1.0) * (0.5 * (self.high - self.low))
        return torch.minimum(torch.maximum(action, self.low), self.high)


def create_actor(
    config: TrainConfig, observation_size: int, action_size: int, rng: torch.Generator
) -> Actor:
    """Returns the actor that `config` describes, initialised from `rng`."""
    return Actor(
        observation_size,
        action_size,
        config.hidden,
        rng,
        learn_std=config.actor != "deterministic",
        squash=config.actor != "unsquashed",
        layer_norm=config.layer_norm in ("actor", "all"),
        dropout=config.dropout,
    )


def branch(rng: torch.Generator) -> torch.Generator:
    """Returns a generator of its own, seeded from `rng`."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=rng)))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    _orthogonal(linear.weight, generator)
    nn.init.zeros_(linear.bias)
    return linear


def _orthogonal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, gain=math.sqrt(2.0), generator=generator)
