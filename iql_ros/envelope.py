"""The safety envelope of an action: finite, within limits, within slew, one of its choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.control.status import Status
from iql_ros.finite import any_of, is_finite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pull:
    """Takes only a share of the way to the policy's action.

    Attributes:
        status: what the tick is called for it: SLOWED or BLENDING.
        start: where the way begins, shape (A,), within the limits.
        share: of the way, 0 to 1.
    """

    status: Status
    start: Array
    share: float


class Enveloped(NamedTuple):
    """What may be published of a proposed action.

    Attributes:
        action: shape (A,), float64, finite and within limits and slew.
        status: OK, LIMITED, SLOWED, BLENDING, SLEWED: the first that changed it; or POLICY
            (then `action` is the safe action).
        detail: what was changed and why; empty if nothing was.
    """

    action: Array
    status: Status
    detail: str


class Envelope:
    """Bounds actions by one contract. Without memory: the same arguments give the same action."""

    def __init__(self, contract: Contract) -> None:
        """Takes limits, slew and the safe action from `contract`."""
        self._low, self._high = contract.action_low, contract.action_high
        self._slew, self._safe = contract.action_slew, contract.action_safe
        self._is_slewed = bool(np.isfinite(self._slew).any())
        self._names = contract.action_names
        self._choices = contract.choices

    def fault(self, proposed: Array) -> str:
        """Says why an action cannot be used at all; "" if it can."""
        if proposed.shape != self._safe.shape:
            return f"the policy gave shape {proposed.shape}, must be {self._safe.shape}"
        if not is_finite(proposed):
            return f"the policy gave {proposed}"
        if self._choices is not None and not nearest_choice(proposed, self._choices)[1].all():
            # The nearest may mean the opposite, so it is not taken instead.
            return (
                f"the policy gave {self._names[0]} = {proposed[0]:.4g} is none of "
                f"{self._choices.tolist()}"
            )
        return ""

    def __call__(
        self, proposed: Array, previous: Array | None, dt_s: float, pulls: Sequence[Pull] = ()
    ) -> Enveloped:
        """What may be published of the policy's action, whatever it is; see `bound`."""
        fault = self.fault(proposed)
        if fault:
            return Enveloped(self._safe, Status.POLICY, fault)
        return self.bound(proposed, previous, dt_s, pulls)

    def bound(
        self, proposed: Array, previous: Array | None, dt_s: float, pulls: Sequence[Pull] = ()
    ) -> Enveloped:
        """Clips to the limits, pulls, then clips to what the slew allows from `previous`.

        Where the contract declares choices it takes the one that is meant instead.

        Args:
            proposed: an action without `fault`, shape (A,).
            previous: the last command, shape (A,), or where the robot is, within limits; None
                stands for the safe action.
            dt_s: time since then, seconds, not negative.
            pulls: applied in order.
        """
        changes: list[tuple[Status, Array]] = []
        if self._choices is not None:
            action = self._choices[nearest_choice(proposed, self._choices)[0]]
        else:
            action = np.minimum(np.maximum(proposed, self._low), self._high)
            if any_of(action != proposed):
                changes.append((Status.LIMITED, action))
        for pull in pulls:
            if pull.share < 1:
                # As two products, it stays finite whatever the limits; clipped, as it rounds.
                pulled = pull.share * action + (1 - pull.share) * pull.start
                action = np.minimum(np.maximum(pulled, self._low), self._high)
                changes.append((pull.status, action))
        if self._is_slewed:
            slewed = self._slewed(action, self._safe if previous is None else previous, dt_s)
            if any_of(slewed != action):
                changes.append((Status.SLEWED, slewed))
            action = slewed
        if not changes:
            return Enveloped(action, Status.OK, "")
        return Enveloped(action, changes[0][0], self._detail(proposed, changes))

    def _slewed(self, action: Array, start: Array, dt_s: float) -> Array:
        # Infinity times zero would be NaN: no time has passed, yet an undeclared slew is free.
        reach = self._slew * dt_s if dt_s > 0 else np.where(np.isinf(self._slew), np.inf, 0.0)
        slewed: Array = np.minimum(np.maximum(action, start - reach), start + reach)
        return slewed

    def _detail(self, proposed: Array, changes: Sequence[tuple[Status, Array]]) -> str:
        final = changes[-1][1]
        changed = np.flatnonzero(final != proposed)
        i = int(changed[0]) if len(changed) else 0
        text = f"{self._names[i]} = {proposed[i]:.4g} became {final[i]:.4g}"
        later = ", ".join(status.value for status, _ in changes[1:])
        return f"{text}, also {later}" if later else text
