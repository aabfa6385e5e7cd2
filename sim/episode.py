"""What came of one episode, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.judge import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """The decisions of an episode, in order.

    Attributes:
        t_s: seconds into the episode, shape (T,).
        statuses: what became of each, T of them.
        observations: what the policy was or would have been asked, (T, O); NaN if unknown.
        actions: what was or would have been published, (T, A).
    """

    t_s: Array
    statuses: tuple[str, ...]
    observations: NDArray[np.float32]
    actions: Array


@dataclass(frozen=True)
class Episode:
    """What came of one episode; all of it follows from the seed.

    Attributes:
        outcome: how it ended.
        trace: every decision.
        statuses: how many decisions by what became of them.
        limit_violations: commands outside of the machine's limits that reached the actuators.
        slew_violations: changes from one command of the policy to the next beyond its slew.
        stop_ticks: from the emergency stop until the actuators held the safe action for good, or
            the episode ended, in control steps, rounded up; None if it was not pressed.
        notice_ticks: decisions of the policy from the fault's beginning until it acted no more,
            or the episode ended; None if no fault began.
    """

    outcome: Outcome
    trace: Trace = field(repr=False, compare=False)
    statuses: dict[str, int]
    limit_violations: int
    slew_violations: int
    stop_ticks: int | None
    notice_ticks: int | None

    @property
    def interventions(self) -> float:
        """Share of decisions in which the policy's action was changed or replaced."""
        return 1.0 - self.statuses.get("ok", 0) / max(1, sum(self.statuses.values()))


@dataclass
class Clocked:
    """What episodes took; differs from run to run.

    Attributes:
        physics_s: in MuJoCo, by the world's clock.
        total_s: in all, by the same.
        ticks_s: processor time of each decision: what other processes do on this machine is
            none of the controller's doing.
    """

    physics_s: float = 0.0
    total_s: float = 0.0
    ticks_s: list[float] = field(default_factory=list)

    def add(self, other: Clocked) -> None:
        """Counts what `other` took besides."""
        self.physics_s += other.physics_s
        self.total_s += other.total_s
        self.ticks_s += other.ticks_s
