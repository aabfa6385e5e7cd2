"""What one tick decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iql_ros.control.status import Status

Array = NDArray[np.float64]


class Command(NamedTuple):
    """What one tick decided.

    Attributes:
        t_ns: the instant.
        status: what became of the tick.
        detail: why, in words; empty when there is nothing to say.
        action: shape (A,), float64; what is or would be published.
        payloads: serialised messages by topic alias; empty: publish nothing.
        ages_s: age of each topic's message, by alias.
        observation: shape (O,), float32; what the policy was or would have been asked.
        proposed: shape (A,), float64; its answer, before the envelope; None if not asked.
        policy_s: how long it took to answer, seconds.
        distance: of the observation from the training data; None if not looked at.
    """

    t_ns: int
    status: Status
    detail: str
    action: Array
    payloads: Mapping[str, bytes]
    ages_s: Mapping[str, float]
    observation: NDArray[np.float32] | None = None
    proposed: Array | None = None
    policy_s: float = 0.0
    distance: float | None = None
