"""Actor and critics of an action that is one of K choices.

Outside they look like those of a continuous action: actions are the choices' values,
scaled to [-1, 1], in a column of their own. So the losses, the loop and the deployed policy
are the same; only here are they numbers from 0 to K - 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from iql_ros.contract import Contract
from training.learning.networks import Mlp


class CategoricalActor(nn.Module):
    """A softmax policy over K choices."""

    choices: Tensor

    def __init__(
        self,
        observation_size: int,
        choices: Tensor,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [observation_size, *hidden, len(choices)]
        self.layers = Mlp(sizes, rng, layer_norm=layer_norm, dropout=dropout)
        self.register_buffer("choices", choices, persistent=False)

    def forward(self, observations: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Returns the logits (B, K); hidden units drop out by `noise`, if given."""
        return self.layers(observations, noise)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Returns log pi(a|s), shape (B,), of actions (B, 1) where the policy has `logits`."""
        numbers = choice_numbers(actions, self.choices)
        return functional.log_softmax(logits, dim=-1).gather(1, numbers[:, None]).squeeze(1)


class GreedyPolicy(nn.Module):
    """Acts by the likeliest choice; of equally likely ones by the first in the contract."""

    def __init__(self, actor: CategoricalActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observations: Tensor) -> Tensor:
        """Returns actions (B, 1), each one of the choices, in [-1, 1]."""
        return self.actor.choices[self.actor(observations).argmax(dim=-1)][:, None]


class ChoiceCritic(nn.Module):
    """Q1(s, .) and Q2(s, .) of all K choices at once; two networks side by side."""

    choices: Tensor

    def __init__(
        self,
        observation_size: int,
        choices: Tensor,
        hidden: Sequence[int],
        rng: torch.Generator,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        sizes = [observation_size, *hidden, len(choices)]
        self.layers = nn.ModuleList(Mlp(sizes, rng, layer_norm=layer_norm) for _ in range(2))
        self.register_buffer("choices", choices, persistent=False)

    def values(self, observations: Tensor) -> Tensor:
        """Returns both critics' values of every choice, shape (2, B, K)."""
        return torch.stack([layers(observations) for layers in self.layers])

    def forward(self, state_actions: Tensor) -> Tensor:
        """Returns both critics' values (2, B) of state-action rows (B, O + 1), as `TwinCritic`."""
        values = self.values(state_actions[:, :-1])
        numbers = choice_numbers(state_actions[:, -1:], self.choices)
        return values.gather(2, numbers[None, :, None].expand(2, -1, 1)).squeeze(2)


def unit_choices(contract: Contract | None) -> Tensor | None:
    """Returns the choices of a discrete action, scaled to [-1, 1], (K,); None if continuous."""
    if contract is None or contract.choices is None:
        return None
    low, high = contract.action_low[0], contract.action_high[0]
    return torch.tensor(2.0 * (contract.choices - low) / (high - low) - 1.0, dtype=torch.float32)


def choice_numbers(actions: Tensor, choices: Tensor) -> Tensor:
    """Returns which of `choices` (K,) each of the scaled actions (B, 1) is, (B,) int64.

    The nearest, since scaling keeps actions 1e-5 off the ends of [-1, 1].
    """
    return (actions - choices).abs().argmin(dim=1)
