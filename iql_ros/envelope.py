"""The safety envelope of an action: finite, within limits, within slew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.status import Status

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Enveloped:
    """What may be published of a proposed action.

    Attributes:
        action: shape (A,), float64, finite and within limits and slew.
        status: OK, LIMITED, or POLICY (then `action` is the safe action).
        detail: what was changed and why; empty if nothing was.
    """

    action: Array
    status: Status
    detail: str


class Envelope:
    """Bounds actions by one contract."""

    def __init__(self, contract: Contract) -> None:
        """Takes limits, slew and the safe action from `contract`."""
        self._low, self._high = contract.action_low, contract.action_high
        self._slew, self._safe = contract.action_slew, contract.action_safe
        self._names = contract.action_names

    def __call__(self, proposed: Array, previous: Array | None, dt_s: float) -> Enveloped:
        """Clips to the limits, then to what the slew allows from the previous command.

        Args:
            proposed: the policy's action, shape (A,).
            previous: the last command, shape (A,); the safe action if there was none.
            dt_s: time since then, seconds, not negative.
        """
        if proposed.shape != self._safe.shape or not np.isfinite(proposed).all():
            return Enveloped(self._safe, Status.POLICY, f"the policy gave {proposed}")
        start = self._safe if previous is None else previous
        reach = self._slew * dt_s if dt_s > 0 else np.where(np.isinf(self._slew), np.inf, 0.0)
        action = np.clip(proposed, self._low, self._high)
        action = np.clip(action, start - reach, start + reach)
        changed = np.flatnonzero(action != proposed)
        if not len(changed):
            return Enveloped(action, Status.OK, "")
        i = int(changed[0])
        detail = f"{self._names[i]} = {proposed[i]:.4g} became {action[i]:.4g}"
        return Enveloped(action, Status.LIMITED, detail)
