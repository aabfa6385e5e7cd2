"""What a controller remembers from one tick to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Memory:
    """All that a controller remembers between ticks, its inbox apart.

    Attributes:
        now_ns: the latest time that was heard of, by a message or a call.
        t_ns: of the last decision; None before it, and after the clock went back.
        tick_ns: of the last tick.
        has_acted: since the start; before it nothing is published.
        previous: the last command, shape (A,); None if nothing is being published.
        halted: why the emergency stop is latched; None if it is not.
        fallen_ns, fallen_from: when the fallback began, and from which command; None if the
            policy acts.
        sound: ticks without a fault since then, in a row.
        released: whether a person has allowed the policy to act again.
        outside, overruns: observations outside of the data, late answers, each in a row.
        blend_ns, blend_from: when the last blend began, and from which command.
        triggers: messages of the trigger topic.
        whole_ns: when the last of them came that had all that is wanted of it.
    """

    now_ns: int = 0
    t_ns: int | None = None
    tick_ns: int | None = None
    has_acted: bool = False
    previous: Array | None = None
    halted: str | None = None
    fallen_ns: int | None = None
    fallen_from: Array | None = None
    sound: int = 0
    released: bool = False
    outside: int = 0
    overruns: int = 0
    blend_ns: int = 0
    blend_from: Array | None = None
    triggers: int = 0
    whole_ns: int | None = None
