"""How the expectile tau goes over a run: annealed, or led by what held-out episodes show.

A high tau makes V the value of the best actions in the data, and a harder thing to learn: it
leans on few transitions, and V can come to promise what no policy does. Both ways begin at
`expectile_start`; a led tau takes a tenth of the way to `expectile` at each look at the
held-out episodes, forward or back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.learning.config import TrainConfig

LED = ("value_error", "policy_value")

# Held-out losses of V are above those in training even at the start, by the luck of the split.
TOLERATED_GAP = 1.25


def annealed_expectile(config: TrainConfig, step: int) -> float:
    """Returns tau: linear in the first half of the run, then constant, so that Q catches up."""
    way = min(1.0, step / (0.5 * config.steps))
    return config.expectile_start + way * (config.expectile - config.expectile_start)


class LedExpectile(nn.Module):
    """A tau that goes up while held-out episodes bear it, and down while they do not.

    With `value_error`, they bear it while the value loss on them is at most TOLERATED_GAP
    times that in training since the last look: beyond, V has learnt its transitions by heart.
    With `policy_value`, they bear it while E[Q(s, pi(s))] >= E[V(s)] on them: below, V
    promises more than the policy is estimated to earn.

    Attributes:
        tau: the expectile now, shape (), float64. It and the sums belong to the checkpoint.
        loss_sum, updates: of training value losses since the last look.
    """

    tau: Tensor
    loss_sum: Tensor
    updates: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        for name, value in (("tau", config.expectile_start), ("loss_sum", 0.0), ("updates", 0.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def count(self, value_loss: Tensor) -> None:
        """Takes note of a value loss in training."""
        self.loss_sum += value_loss.detach()
        self.updates += 1

    def look(self, held_out: Mapping[str, float]) -> None:
        """Moves tau by what the held-out losses, see `Iql.evaluate`, say."""
        if self.config.expectile_schedule == "value_error":
            training_loss = (self.loss_sum / self.updates).item()
            borne = held_out["value_loss"] <= TOLERATED_GAP * training_loss
        else:
            borne = held_out["policy_value"] >= held_out["value"]
        start, end = self.config.expectile_start, self.config.expectile
        stride = 0.1 * (end - start)
        self.tau.add_(stride if borne else -stride).clamp_(start, end)
        self.loss_sum.zero_()
        self.updates.zero_()
