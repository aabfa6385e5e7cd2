"""Acting by choice among samples: N actions of the behaviour model, ranked by the critics.

The policy cannot leave what the data does, and yet need not imitate it. As in IDQL
(Hansen-Estruch et al., 2023), with a mixture of Gaussians in place of diffusion.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from training.learning.mixture import MixtureActor, rows_of

ELITE = 8
"""A refinement goes on from the best of so many."""

Selection = Literal["best", "drawn"]


class SampledPolicy(nn.Module):
    """Chooses among samples whose noise is fixed when it is made.

    With fixed noise the policy is a function of the observation alone: it can be compared
    with golden pairs, replayed, and held to account, as any other. The noise is
    of low discrepancy, so that few samples cover the model evenly.

    `best` takes the action of the largest Q; `drawn` one with probability proportional to
    exp(beta A), by adding Gumbel noise, fixed as well (V is the same for all of a state).
    Each refinement draws N more from the Gaussian around the best eighth so far, as the
    cross-entropy method does.
    """

    uniform: Tensor
    normal: Tensor
    gumbel: Tensor

    def __init__(
        self,
        behaviour: MixtureActor,
        worth: nn.Module,
        *,
        samples: int,
        refinements: int = 0,
        selection: Selection = "best",
        inverse_temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Joins both.

        Args:
            worth: Q of actions (B, N, A) in states (B, O), shape (B, N).
        """
        super().__init__()
        self.behaviour = behaviour
        self.worth = worth
        self.samples = samples
        self.selection = selection
        self.inverse_temperature = inverse_temperature
        rounds = 1 + refinements
        size = behaviour.action_size
        noise = _even_noise(samples, 1 + rounds * (size + 1), seed)
        self.register_buffer("uniform", noise[:, 0], persistent=False)
        normal = torch.special.ndtri(noise[:, 1 : 1 + rounds * size])
        normal = normal.reshape(samples, rounds, size).transpose(0, 1)
        self.register_buffer("normal", normal.contiguous(), persistent=False)
        gumbel = -torch.log(-torch.log(noise[:, 1 + rounds * size :])).T
        self.register_buffer("gumbel", gumbel.contiguous(), persistent=False)

    def forward(self, observations: Tensor) -> Tensor:
        """Returns the chosen actions (B, A) in [-1, 1]."""
        return self.choose(observations, self.uniform, self.normal, self.gumbel)

    def choose(
        self, observations: Tensor, uniform: Tensor, normal: Tensor, gumbel: Tensor
    ) -> Tensor:
        """Returns the actions (B, A) chosen among samples of this noise.

        Args:
            uniform: which part of the mixture, (N,), or (B, N) to differ from state to state.
            normal: places in it for each of R rounds, (R, N, A) or (R, B, N, A).
            gumbel: added to the scores of `drawn`, (R, N) or (R, B, N).
        """
        parameters = self.behaviour(observations)
        actions = self.behaviour.draw(parameters, uniform, normal[0])
        values = self.worth(observations, actions)
        scores = self._scores(values, gumbel[0])
        for i in range(1, len(normal)):
            best = values.topk(max(2, self.samples // ELITE), dim=1).indices
            mean, std = _spread(rows_of(actions, best))
            more = (mean + std * normal[i]).clamp(-1.0, 1.0)
            of_more = self.worth(observations, more)
            actions = torch.cat([actions, more], dim=1)
            values = torch.cat([values, of_more], dim=1)
            scores = torch.cat([scores, self._scores(of_more, gumbel[i])], dim=1)
        return rows_of(actions, scores.argmax(dim=1, keepdim=True)).squeeze(1)

    def _scores(self, values: Tensor, gumbel: Tensor) -> Tensor:
        if self.selection == "best":
            return values
        return self.inverse_temperature * values + gumbel


def _spread(actions: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over dimension 1, which stays.

    By sums: of all the operators that reduce, TensorRT 8.6 understands the axes of this one only.
    """
    count = actions.shape[1]
    mean = actions.sum(dim=1, keepdim=True) / count
    variance = (actions - mean).square().sum(dim=1, keepdim=True) / (count - 1)
    return mean, variance.sqrt()


def _even_noise(samples: int, width: int, seed: int) -> Tensor:
    """Scrambled Sobol points (samples, width), off the ends of (0, 1)."""
    engine = torch.quasirandom.SobolEngine(width, scramble=True, seed=seed)
    return engine.draw(samples).clamp(1e-6, 1.0 - 1e-6)
