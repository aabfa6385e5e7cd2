"""What is known of a bag's channels and topics; it grows while the bag is walked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from training.logs.log import Topic, admit, note


@dataclass
class Contents:
    """Channels (ROS 1: connections) by number, and the topics that they publish on.

    `kinds` has every channel, `names` those whose messages can be read; `schemas` are MCAP's
    (name, text).
    """

    findings: list[str]
    topics: dict[str, Topic] = field(default_factory=dict)
    kinds: dict[int, Topic] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    schemas: dict[int, tuple[str, str]] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    is_counted: bool = True
    start_ns: int | None = None
    end_ns: int | None = None

    def declare(self, number: int, topic: Topic) -> None:
        """Takes in what a channel publishes; a second, different word on it is not believed."""
        if self.kinds.setdefault(number, topic) is not topic:
            if self.kinds[number] != topic:
                note(self.findings, f"channel {number} is defined twice: the first was taken")
        elif admit(topic, self.topics, self.findings):
            self.names[number] = topic.name

    def widen(self, start_ns: int, end_ns: int) -> None:
        """Takes in that there are messages from one time to another."""
        self.start_ns = start_ns if self.start_ns is None else min(self.start_ns, start_ns)
        self.end_ns = end_ns if self.end_ns is None else max(self.end_ns, end_ns)

    def counted_topics(self) -> dict[str, Topic]:
        """The topics, each with the sum of its channels' counts where these are known."""
        if not self.is_counted:
            return self.topics
        totals = Counter[str]()
        for number, name in self.names.items():
            totals[name] += self.counts[number]
        return {name: replace(topic, count=totals[name]) for name, topic in self.topics.items()}
