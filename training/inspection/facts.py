"""What is known of a log once it has been looked through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.inspection.clock_facts import Arrivals, Stamps
from training.inspection.payloads import Numbers


@dataclass(frozen=True)
class TopicFacts:
    """What one topic holds.

    Attributes:
        definition: "embedded", "standard", "given" or "unknown".
        unknown: why its content was not looked at; "" if it was.
        mean_bytes: of a payload.
        receive: by the recorder's clock.
        header: by the stamps; None where the type has none.
        layouts: how many layouts its messages have; 0 where the content was not looked at.
        numbers: what can be read from most of its messages.
        orders: the orders of names (of joints) that its messages have, most frequent first.
        nonfinite: by path, how many messages have a NaN or an infinity there.
        sign_flips: by path of a quaternion, how often it jumps to its negative.
        damaged: payloads that are no message of the type.
    """

    name: str
    msgtype: str
    encoding: str
    definition: str
    unknown: str
    count: int
    mean_bytes: float
    receive: Arrivals
    header: Stamps | None
    layouts: int
    numbers: tuple[Numbers, ...]
    orders: tuple[tuple[str, ...], ...]
    nonfinite: Mapping[str, int]
    sign_flips: Mapping[str, int]
    damaged: int


@dataclass(frozen=True)
class LogFacts:
    """What a log holds: its topics by name, what is wrong with it, and the remedies."""

    path: Path
    start_ns: int
    duration_s: float
    topics: tuple[TopicFacts, ...]
    findings: tuple[str, ...]
    warnings: tuple[str, ...]

    def topic(self, name: str) -> TopicFacts | None:
        """The topic `name`, or None."""
        return next((topic for topic in self.topics if topic.name == name), None)


def facts_as_json(facts: LogFacts) -> dict[str, Any]:
    """The facts as plain JSON types; numbers that can be read are given as paths."""
    topics = [
        {**asdict(topic), "numbers": [numbers.path() for numbers in topic.numbers]}
        for topic in facts.topics
    ]
    return {**asdict(facts), "path": str(facts.path), "topics": topics}
