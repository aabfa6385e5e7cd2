"""Judges an episode by what the messages say, with the rules of the contract and the world file.

Measured values count, not the true state: a log of the run holds the same, so simulator and
converter agree on every reward and every end of an episode.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError
from iql_ros.fields import FieldPlan, Frame
from iql_ros.wire import Reader, make_types
from sim.expressions import Expression
from sim.world_file import WorldFile

Array = NDArray[np.float64]
Ending = Literal["success", "failure", "time limit", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Attributes:
        episode: its number.
        success: whether it ended as the world file wants it.
        ending: why it ended.
        steps: control periods it took.
        total_reward: undiscounted sum of its rewards.
        duration_s: its length in simulated seconds.
    """

    episode: int
    success: bool
    ending: Ending
    steps: int
    total_reward: float
    duration_s: float


class Judge:
    """Adds up one episode after the other.

    Attributes:
        outcome: of the episode, None while it runs.
    """

    def __init__(self, file: WorldFile, contract: Contract, step_s: float) -> None:
        """Compiles readers and rules.

        Raises:
            ContractError: a rule is none, or uses what is not there.
        """
        self._contract, self._step_s = contract, step_s
        names = [
            field.name
            for field in contract.fields.values()
            if field.history_of is None and not field.previous_action
        ]
        columns = [component for name in names for component in contract.components(name)]
        known = {*columns, *contract.action_names, *(f"next_{column}" for column in columns)}
        self._success = Expression(file.success, columns, "success")
        self._failure = file.failure and Expression(file.failure, columns, "failure")
        self._reward, used = _reward(contract, known)
        used |= {*self._success.names, *(self._failure.names if self._failure else ())}
        used = {name.removeprefix("next_") for name in used}
        needed = [name for name in names if used & set(contract.components(name))]
        self._all, self._needed = _Look(contract, names), _Look(contract, needed)
        self._limit = max(1, round(file.time_limit_s / step_s))
        self._hold = max(1, round(file.hold_s / step_s))
        self._newest: dict[str, bytes] = {}
        self.begin(0)

    def begin(self, episode: int) -> None:
        """Forgets all but what topics said last."""
        self.outcome: Outcome | None = None
        self._episode, self._steps, self._held, self._total = episode, -1, 0, 0.0
        self._before: dict[str, float] = {}

    def put(self, alias: str, payload: bytes) -> None:
        """Takes one message as the sensor sent it."""
        self._newest[alias] = payload

    @property
    def fields(self) -> dict[str, Array]:
        """All message and derived fields by name, (components,), as last measured."""
        return self._all.fields(self._newest)

    def step(self, action: Array, *, diverged: bool) -> None:
        """A control step ends here, and the next begins.

        Args:
            action: what the actuators held during the step, shape (A,).
            diverged: whether the physics has come apart.
        """
        if self.outcome is not None:
            return
        now = self._before if diverged else self._needed.columns(self._newest)
        self._steps += 1
        if self._steps > 0:
            columns = {f"next_{name}": value for name, value in now.items()}
            columns.update(zip(self._contract.action_names, action.tolist(), strict=True))
            self._total += self._reward({**self._before, **columns})
        self._before = now
        self._held = self._held + 1 if self._success(now) == 1 else 0
        ending = self._ending(now, diverged)
        if ending is not None:
            steps = max(1, self._steps)  # one that ends where it begins has taken no less
            self.outcome = Outcome(
                *(self._episode, ending == "success", ending, steps),
                *(self._total, steps * self._step_s),
            )

    def _ending(self, now: Mapping[str, float], diverged: bool) -> Ending | None:
        if diverged:
            return "diverged"
        if self._steps < 1:
            return None
        if self._failure and self._failure(now) == 1:
            return "failure"
        if self._held >= self._hold:
            return "success"
        return "time limit" if self._steps >= self._limit else None


class _Look:
    """Reads fields from the newest payloads."""

    def __init__(self, contract: Contract, names: list[str]) -> None:
        plan = FieldPlan(contract, names)
        types = make_types(contract.definitions)
        self._readers = [
            (alias, Reader(types, contract.topics[alias].type, paths))
            for alias, paths in plan.paths.items()
        ]
        self._frame = Frame(plan)
        self._names = [name for field in names for name in contract.components(field)]
        self._places = self._frame.places(names)

    def fields(self, newest: Mapping[str, bytes]) -> dict[str, Array]:
        """By name, (components,); NaN where a topic has not spoken, or lacks a value."""
        self._read(newest)
        return {name: values.copy() for name, values in self._frame.fields.items()}

    def columns(self, newest: Mapping[str, bytes]) -> dict[str, float]:
        """By component."""
        self._read(newest)
        values = self._frame.values[self._places]
        return dict(zip(self._names, values.tolist(), strict=True))

    def _read(self, newest: Mapping[str, bytes]) -> None:
        rows = self._frame.rows
        for alias, reader in self._readers:
            payload = newest.get(alias)
            row = None if payload is None else reader.read(payload)
            rows[alias][:] = math.nan if row is None else row
        with np.errstate(all="ignore"):
            self._frame.derive()


Reward = Callable[[Mapping[str, float]], float]


def _reward(contract: Contract, known: set[str]) -> tuple[Reward, set[str]]:
    """The contract's reward as a function of the columns of one step, and which it uses."""
    rule = contract.reward
    if rule.expression is not None:
        expression = Expression(rule.expression, known, "reward.expression")
        return expression, set(expression.names)
    if rule.field is not None:
        column = f"next_{contract.components(rule.field)[0]}"
        return lambda columns: columns[column], {column}
    assert rule.function is not None
    module, _, name = rule.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(f"reward.function = {rule.function!r}: {error}") from None
    return (
        lambda columns: float(function({k: np.array([v]) for k, v in columns.items()})[0]),
        known,
    )
