"""One seed of several that train together, as checkpoint, log and export see a learner.

What a member saves is what a run of its own would have saved, so either can go on as the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.learning.batch import Batch
from training.learning.fast import FastIql
from training.learning.stack import Stack

MOMENTS = "exp_avg", "exp_avg_sq"


class Member:
    """A `Learner` that does not update by itself: the `FastIql` it belongs to does."""

    def __init__(self, whole: FastIql, number: int) -> None:
        """Takes the place of `whole.members[number]`."""
        self._iql = whole.members[number]
        self.loss_names = whole.loss_names
        self.action_size = whole.action_size
        self.generators = self._iql.generators
        share = number, len(whole.members)
        stacks = {
            "value": [whole.value],
            "actor_and_critic": [whole.actor, whole.critic],
        }
        self.optimisers: dict[str, Any] = {
            name: _Share(whole.optimisers[name], of, *share) for name, of in stacks.items()
        }

    def update(self, batch: Batch, step: int) -> Tensor:
        """Is not for a member: all take a step together."""
        raise TypeError("a member does not update alone: update the FastIql that it belongs to")

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns what `Iql.evaluate` does."""
        return self._iql.evaluate(batch)

    def adapt(self, held_out: Mapping[str, float]) -> None:
        """Passes the newest held-out losses on to the expectile's schedule."""
        self._iql.adapt(held_out)

    def deployed(self) -> nn.Module:
        """Returns what the member deploys."""
        return self._iql.deployed()

    def state_dict(self) -> dict[str, Any]:
        """Returns copies of the member's weights."""
        # Views would take the other members' weights with them into the file.
        return {name: value.clone() for name, value in self._iql.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Sets the member's weights."""
        return self._iql.load_state_dict(state_dict)


class _Share:
    """One member's part of an Adam over stacks, in the form that Adam saves and loads."""

    def __init__(self, adam: Optimizer, stacks: list[Stack], number: int, members: int) -> None:
        self._adam, self._stacks = adam, stacks
        self._number, self._members = number, members

    def _views(self, stack: Stack, values: Tensor) -> list[Tensor]:
        return stack.of_member(values, self._number, self._members)

    def state_dict(self) -> dict[str, Any]:
        whole = self._adam.state_dict()
        states = {}
        for i, stack in enumerate(self._stacks):
            state = self._adam.state[stack.flat]
            own = {"step": state["step"].clone()}
            for name in MOMENTS:
                own[name] = torch.cat([v.flatten() for v in self._views(stack, state[name])])
            states[i] = own
        return {**whole, "state": states}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        for i, stack in enumerate(self._stacks):
            state, own = self._adam.state[stack.flat], content["state"][i]
            state["step"].copy_(own["step"])
            for name in MOMENTS:
                views = self._views(stack, state[name])
                parts = own[name].split([view.numel() for view in views])
                for view, part in zip(views, parts, strict=True):
                    view.copy_(part.view_as(view))
