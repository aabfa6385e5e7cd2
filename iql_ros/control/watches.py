"""Two faults that freshness does not show: a frozen sensor, and a switch that was let go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.sampler import SECOND_NS, max_age_ns

Array = NDArray[np.float64]


class FrozenWatch:
    """Since when each watched topic has repeated the same values.

    Attributes:
        since: by alias, the arrival of the first message with the present values, and they.
    """

    def __init__(self, contract: Contract) -> None:
        """Watches the topics with `frozen_s`."""
        self._topics = {
            alias: (topic.absolute, topic.frozen_s, round(topic.frozen_s * SECOND_NS))
            for alias, topic in contract.topics.items()
            if topic.frozen_s is not None
        }
        self.since: dict[str, tuple[int, Array]] = {}

    def put(self, alias: str, arrival_ns: int, row: Array) -> None:
        """Takes the values of one message, shape (W,)."""
        if alias in self._topics:
            held = self.since.get(alias)
            if held is None or held[1].tobytes() != row.tobytes():
                self.since[alias] = (arrival_ns, row)

    def fault(self, t_ns: int) -> str:
        """Names the first topic that has repeated itself for too long; "" if none has."""
        for alias, (name, limit_s, limit_ns) in self._topics.items():
            since_ns = self.since[alias][0] if alias in self.since else t_ns
            if t_ns - since_ns > limit_ns:
                return (
                    f"{name} has repeated the same values for "
                    f"{(t_ns - since_ns) / SECOND_NS:.2f} s, limit {limit_s:.2f} s: "
                    f"is its sensor alive?"
                )
        return ""


class Switch:
    """The enable switch.

    Attributes:
        newest: the time of the newest message, and its value; None if it could not be read.
    """

    def __init__(self, contract: Contract) -> None:
        """Takes the rule from `contract.safety.enable`, which is there."""
        rule = contract.safety.enable
        assert rule is not None
        self._rule = rule
        self._name = contract.topics[rule.topic].absolute
        self._max_age_ns = max_age_ns(contract, rule.topic)
        self.newest: tuple[int, float | None] | None = None

    def put(self, t_ns: int, value: float | None) -> None:
        """Takes one message: the older of its arrival and its stamp, and the value."""
        self.newest = (t_ns, value)

    def fault(self, t_ns: int) -> str:
        """Why it does not let the policy act at t; "" if it does."""
        if self.newest is None:
            return f"the enable switch has not spoken: is {self._name} publishing?"
        since_ns, value = self.newest
        age_ns = t_ns - since_ns
        if age_ns > self._max_age_ns:
            return (
                f"the enable switch is {age_ns / SECOND_NS:.2f} s old, limit "
                f"{self._max_age_ns / SECOND_NS:.2f} s: is {self._name} publishing?"
            )
        if value is None:
            return f"the enable switch cannot be read: {self._name} lacks {self._rule.path}"
        if self._rule.equals is not None:
            is_held = value == self._rule.equals
        else:
            is_held = self._rule.at_least is not None and value >= self._rule.at_least
        return "" if is_held else f"the enable switch is released: {self._rule.path} is {value:g}"
