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
from iql_ros.fields import FieldPlan
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
        fields: message and derived fields by name, (components,), as last measured.
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
        self._plan = FieldPlan(contract, names)
        types = make_types(contract.definitions)
        self._readers = {
            alias: Reader(types, contract.topics[alias].type, paths)
            for alias, paths in self._plan.paths.items()
        }
        self._columns = [name for field in names for name in contract.components(field)]
        known = {*self._columns, *contract.action_names, *(f"next_{n}" for n in self._columns)}
        self._success = Expression(file.success, self._columns, "success")
        self._failure = file.failure and Expression(file.failure, self._columns, "failure")
        self._reward = _reward(contract, known)
        self._limit = max(1, round(file.time_limit_s / step_s))
        self._hold = max(1, round(file.hold_s / step_s))
        self._newest: dict[str, bytes] = {}
        self.begin(0)

    def begin(self, episode: int) -> None:
        """Forgets all but what topics said last."""
        self.outcome: Outcome | None = None
        self.fields: dict[str, Array] = {}
        self._episode, self._steps, self._held, self._total = episode, -1, 0, 0.0
        self._before: dict[str, float] = {}

    def put(self, alias: str, payload: bytes) -> None:
        """Takes one message as the sensor sent it."""
        if alias in self._readers:
            self._newest[alias] = payload

    def step(self, action: Array, *, diverged: bool) -> None:
        """A control step ends here, and the next begins.

        Args:
            action: what the actuators held during the step, shape (A,).
            diverged: whether the physics has come apart.
        """
        if self.outcome is not None:
            return
        if not diverged:
            self._look()
        self._steps += 1
        now = self._values
        if self._steps > 0:
            columns = dict(self._before)
            columns.update(zip(self._contract.action_names, action.tolist(), strict=True))
            columns.update((f"next_{name}", value) for name, value in now.items())
            self._total += self._reward(columns)
        self._before = now
        self._held = self._held + 1 if self._success(now) == 1 else 0
        ending: Ending | None = None
        if diverged:
            ending = "diverged"
        elif self._failure and self._failure(now) == 1:
            ending = "failure"
        elif self._held >= self._hold:
            ending = "success"
        elif self._steps >= self._limit:
            ending = "time limit"
        if ending is not None and self._steps > 0:
            duration_s = self._steps * self._step_s
            self.outcome = Outcome(
                *(self._episode, ending == "success", ending, self._steps, self._total, duration_s)
            )

    def _look(self) -> None:
        rows = {}
        for alias, reader in self._readers.items():
            payload = self._newest.get(alias)
            row = None if payload is None else reader.read(payload)
            rows[alias] = np.full(reader.width, math.nan) if row is None else row
        computed = self._plan.compute({alias: row[None] for alias, row in rows.items()})
        self.fields = {name: values[0] for name, values in computed.items()}
        flat = np.concatenate([self.fields[name] for name in self._names]).tolist()
        self._values: dict[str, float] = dict(zip(self._columns, flat, strict=True))

    @property
    def _names(self) -> tuple[str, ...]:
        return self._plan.names


def _reward(contract: Contract, known: set[str]) -> Callable[[Mapping[str, float]], float]:
    """The contract's reward as a function of the columns of one step."""
    rule = contract.reward
    if rule.expression is not None:
        return Expression(rule.expression, known, "reward.expression")
    if rule.field is not None:
        column = f"next_{contract.components(rule.field)[0]}"
        return lambda columns: columns[column]
    assert rule.function is not None
    module, _, name = rule.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(f"reward.function = {rule.function!r}: {error}") from None
    return lambda columns: float(function({k: np.array([v]) for k, v in columns.items()})[0])
