"""What is published when the policy may not act, as the contract declares it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract

Array = NDArray[np.float64]


class Fallback:
    """One contract's way from the last command to rest. Without memory."""

    def __init__(self, contract: Contract) -> None:
        """Takes the rule, the safe action and the slew from `contract`."""
        self._rules = contract.safety
        self._safe, self._slew = contract.action_safe, contract.action_slew
        self._low, self._high = contract.action_low, contract.action_high
        self._zero = np.zeros(contract.action_size)
        self._zero.setflags(write=False)

    def __call__(
        self, start: Array, previous: Array | None, elapsed_s: float, dt_s: float
    ) -> Array | None:
        """The command of one tick.

        Args:
            start: the last command before the fallback began, shape (A,).
            previous: the last command, shape (A,); None if nothing is being published.
            elapsed_s: time since it began, seconds, not negative.
            dt_s: time since the last command, seconds, not negative.

        Returns:
            The action, shape (A,), within limits; None: publish nothing.
        """
        match self._rules.fallback:
            case "hold":
                return start if elapsed_s < self._rules.hold_s else self._safe
            case "zero":
                return self._zero
            case "ramp":
                return self._ramp(start, self._safe if previous is None else previous, dt_s)
            case "silent":
                ends = previous is None or elapsed_s > self._rules.silent_after_s
                return None if ends else self._safe
            case _:
                return self._safe

    def _ramp(self, start: Array, previous: Array, dt_s: float) -> Array:
        """Towards the safe action, at most at the slew, and in no less than `ramp_s`."""
        if dt_s <= 0:
            return previous
        per_s = self._slew
        if self._rules.ramp_s is not None:
            # Halved, as the difference of the widest limits that can be declared overflows.
            half = np.abs(self._safe / 2 - start / 2)
            per_s = np.minimum(per_s, 2 * half / self._rules.ramp_s)
        reach = per_s * dt_s
        return np.minimum(np.maximum(self._safe, previous - reach), previous + reach)
