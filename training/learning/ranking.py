"""Twin critics as they are asked on a robot: many actions of one state.

Trained, both are stacked, and a row is state and action. Here what the first layer makes of
the state is computed once for all actions, and the layers are plain ones, which ONNX Runtime
and TensorRT fuse with bias and ReLU. The values are the same up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.learning.networks import TwinCritic


class RankingCritic(nn.Module):
    """The smaller of Q1(s, a) and Q2(s, a) for N actions of each state."""

    def __init__(self, critic: TwinCritic, observation_size: int) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            _OneCritic(critic, number, observation_size) for number in range(2)
        )

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Returns values (B, N) of actions (B, N, A) in states (B, O)."""
        q1, q2 = (critic(observations, actions) for critic in self.critics)
        smaller = torch.minimum(q1, q2)  # not amin: TensorRT 8.6 misreads its axes
        return smaller.reshape(-1, actions.shape[1])


class _OneCritic(nn.Module):
    def __init__(self, critic: TwinCritic, number: int, observation_size: int) -> None:
        super().__init__()
        weights = [weight.detach()[number].T for weight in critic.weights]
        biases = [bias.detach()[number, 0] for bias in critic.biases]
        of_state, of_action = weights[0].split(
            [observation_size, weights[0].shape[1] - observation_size], dim=1
        )
        self.of_state = _linear(of_state, biases[0])
        self.of_action = _linear(of_action, None)
        layers: list[nn.Module] = []
        for i in range(len(weights) - 1):
            if i:
                layers.append(_linear(weights[i], biases[i]))
            if i < len(critic.gains):
                layers.append(_norm(critic.gains[i][number, 0], critic.offsets[i][number, 0]))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.last = _linear(weights[-1], biases[-1])

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Returns values (1, B N)."""
        of_state = self.of_state(observations)
        # Rows, so that the layers are plain matrix products in the graph.
        rows = actions.flatten(0, 1)
        if len(observations) == 1:  # as on a robot: the product adds what is the state's
            first = torch.addmm(of_state, rows, self.of_action.weight.T)
        else:
            first = self.of_action(rows) + of_state.repeat_interleave(actions.shape[1], dim=0)
        rows = self.layers(first)
        # The weights times the rows: a product with one column takes four times as long.
        return functional.linear(self.last.weight, rows, self.last.bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return linear


def _norm(gain: Tensor, offset: Tensor) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(gain), dtype=gain.dtype)
    norm.weight = nn.Parameter(gain.detach().clone(), requires_grad=False)
    norm.bias = nn.Parameter(offset.detach().clone(), requires_grad=False)
    return norm
