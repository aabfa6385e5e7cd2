"""What a proposed contract says, before it is text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.inspection.facts import LogFacts, TopicFacts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Numbers of one topic that become one field or action.

    Attributes:
        path: in the contract's grammar.
        unit: "" where the names do not tell.
        unit_sliding: of joints, which turn or slide and do not say which: the unit if they slide.
        kind: "position", "velocity", "effort", or "" where the names do not tell.
        low, high: the data's range, widened and rounded outward, shape (components,).
        slew: largest change per second, shape (components,); 0 where it never changes.
        middle: the median, shape (components,).
        derive: "rot6d", "yaw" or "sincos" where the numbers themselves are not continuous.
        notes: what was left out, and why.
    """

    name: str
    path: str
    unit: str
    unit_sliding: str
    kind: str
    low: Array
    high: Array
    slew: Array
    middle: Array
    derive: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """One topic of the proposed contract: its parts and, of a command, its rule for silence.

    `constants` are numbers that the commands always hold; `why` is the reason of the rule.
    """

    alias: str
    facts: TopicFacts
    parts: tuple[Part, ...]
    max_age_s: float = 0.0
    constants: Mapping[str, float] | None = None
    timeout_s: float = 0.0
    on_silence: str = ""
    why: str = ""


@dataclass(frozen=True)
class Proposal:
    """All that the text of a contract says; `others` are the topics left out, with reasons."""

    facts: LogFacts
    tick_hz: float
    states: tuple[Use, ...]
    commands: tuple[Use, ...]
    others: Mapping[str, str]
    message_folders: Sequence[str]
