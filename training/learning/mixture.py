"""A model of the behaviour in the data: a mixture of Gaussians whose parts depend on the state.

Where operators do one of several things, a single Gaussian lies between them; a mixture
follows each. It is trained by maximum likelihood (Bishop, "Mixture Density Networks", 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.learning.networks import LOG_STD_MAX, LOG_STD_MIN, Mlp


class MixtureActor(nn.Module):
    """Over actions (B, A): M Gaussians with means in (-1, 1), diagonal covariances, weights."""

    sums: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        components: int,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.components = components
        self.action_size = action_size
        sizes = [observation_size, *hidden, components * (1 + 2 * action_size)]
        sums = torch.ones(components, components).triu()[:, :-1]
        self.register_buffer("sums", sums.contiguous(), persistent=False)
        self.layers = Mlp(sizes, rng, layer_norm=layer_norm, dropout=dropout)

    def forward(self, observations: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Returns the parameters (B, M (1 + 2 A)); hidden units drop out by `noise`, if given."""
        return self.layers(observations, noise)

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weights' logits (B, M), means and log standard deviations (B, M, A)."""
        m, a = self.components, self.action_size
        logits, means, log_stds = parameters.split([m, m * a, m * a], dim=1)
        return (
            logits,
            torch.tanh(means).unflatten(1, (m, a)),
            log_stds.clamp(LOG_STD_MIN, LOG_STD_MAX).unflatten(1, (m, a)),
        )

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Returns log pi(a|s), shape (B,), of actions (B, A) where the model has `parameters`."""
        logits, means, log_stds = self.parts(parameters)
        deviation = (actions[:, None] - means) * torch.exp(-log_stds)
        constant = 0.5 * math.log(2 * math.pi) * self.action_size
        log_densities = (-0.5 * deviation.square() - log_stds).sum(dim=-1) - constant
        return torch.logsumexp(torch.log_softmax(logits, dim=1) + log_densities, dim=1)

    def draw(self, parameters: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
        """Returns N actions of each state, (B, N, A), clipped to [-1, 1].

        Args:
            parameters: (B, M (1 + 2 A)).
            uniform: chooses the part of each action, in (0, 1), shape (N,) or (B, N).
            normal: its place within the part, shape (N, A) or (B, N, A).
        """
        logits, means, log_stds = self.parts(parameters)
        # The last part's share is left out, so that rounding cannot choose one beyond it.
        # A product, not cumsum, of which TensorRT makes a loop.
        edges = logits.softmax(dim=1) @ self.sums
        part = (uniform[..., None] > edges[:, None]).sum(dim=2)
        action = rows_of(means, part) + rows_of(log_stds.exp(), part) * normal
        return action.clamp(-1.0, 1.0)


def rows_of(tables: Tensor, index: Tensor) -> Tensor:
    """Returns rows (B, N) of each of the tables (B, M, A), shape (B, N, A)."""
    if len(tables) == 1:  # as on a robot: in the graph one operator instead of three
        return functional.embedding(index, tables.flatten(0, 1))
    return tables.gather(1, index[..., None].expand(-1, -1, tables.shape[2]))
