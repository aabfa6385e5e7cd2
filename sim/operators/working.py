"""An operator at work: short stretches, each with one intent, none of them an expert's.

What operators there are, what each tends to do and what an intent means is one robot's table: a
`Crew`. An operator on duty is a pilot (see `sim.loop`): it sees the contract's fields as they were
measured, and answers with an action within the contract's limits and slew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.world import World

Array = NDArray[np.float64]
Fields = Mapping[str, Array]
Move = Callable[[Fields], Array]
"""From the measured fields, each (components,), to the action (A,) of one step, SI units."""
Intent = Callable[[np.random.Generator], Move]
"""Draws how a stretch is to be moved."""


@dataclass(frozen=True)
class Operator:
    """How one kind of operator works.

    Attributes:
        share: how often this operator is on duty, relative to the others.
        intents: how often it takes up each intent, relative to its other intents.
        noise: standard deviation of its hand, a share of the limits' width.
    """

    share: float
    intents: Mapping[str, float]
    noise: float = 0.0


@dataclass(frozen=True)
class Crew:
    """The operators of one robot.

    Attributes:
        operators: by name.
        intents: what each of their intents means.
        stretch: least and greatest number of steps of a stretch.
    """

    operators: Mapping[str, Operator]
    intents: Mapping[str, Intent]
    stretch: tuple[int, int]

    def __post_init__(self) -> None:
        for name, operator in self.operators.items():
            if unknown := set(operator.intents) - set(self.intents):
                raise ValueError(f"operator {name!r} has intents {unknown}, which the crew has not")


class Shift:
    """One operator at work for one episode: a pilot, see `sim.loop`.

    Attributes:
        operator: its name in the crew.
    """

    def __init__(self, crew: Crew, rng: np.random.Generator, world: World) -> None:
        """Draws the operator who is on duty from `rng`; the limits are those of the contract."""
        self._crew, self._rng = crew, rng
        contract = world.contract
        self._low, self._high = contract.action_low, contract.action_high
        self._change = contract.action_slew * world.step_s
        self._command = contract.action_safe
        names = list(crew.operators)
        self.operator = names[_draw(rng, [crew.operators[name].share for name in names])]
        self._noise = crew.operators[self.operator].noise
        self._steps_left = 0

    def __call__(self, fields: Fields) -> Array:
        """The action (A,) for the step that begins with `fields`."""
        if self._steps_left == 0:
            self._take_up_intent()
        self._steps_left -= 1
        hand = self._noise * (self._high - self._low) * self._rng.standard_normal(len(self._low))
        wanted = self._move(fields) + hand
        wanted = np.clip(wanted, self._command - self._change, self._command + self._change)
        self._command = np.clip(wanted, self._low, self._high)
        return self._command

    def _take_up_intent(self) -> None:
        intents = self._crew.operators[self.operator].intents
        name = list(intents)[_draw(self._rng, list(intents.values()))]
        self._move = self._crew.intents[name](self._rng)
        shortest, longest = self._crew.stretch
        self._steps_left = int(self._rng.integers(shortest, longest + 1))


def _draw(rng: np.random.Generator, weights: list[float]) -> int:
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))
