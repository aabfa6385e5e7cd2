"""Says what the node waits for: a controller that does nothing must say why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rclpy.qos import ReliabilityPolicy

from iql_ros.contracts.schema import Topic
from iql_ros.control.status import Status
from iql_ros.nodes.loop import Loop
from iql_ros.nodes.wiring import qos_of

LOOK_S = 1.0
AGAIN_S = 5.0
_OF_DATA = frozenset({Status.WAITING, Status.STALE})


class Waiting:
    """Looks on a timer of the node's own thread, never in a tick; at the graph only if it tells."""

    def __init__(self, node: Any, loop: Loop, problems: Mapping[str, str]) -> None:
        """Nothing has been heard yet.

        Args:
            node: whose graph is asked.
            loop: that waits.
            problems: by topic, why its two ends do not fit.
        """
        self._node, self._loop, self._problems = node, loop, problems
        self._since_s: float | None = None
        self._told_s = 0.0

    def begin(self) -> None:
        """Says what is missing at activation."""
        self._since_s = self._told_s = time.monotonic()
        if self._loop.account.unheard:
            self._node.get_logger().info(f"active; waits for {self._missing()}")

    def look(self) -> None:
        """Says again, every `AGAIN_S`, what is missing, and since when."""
        latest, now_s = self._loop.latest, time.monotonic()
        unheard = self._loop.account.unheard
        detail = latest.detail if latest is not None and latest.status in _OF_DATA else ""
        if not self._loop.active or not (unheard or detail):
            self._since_s = None
            return
        if self._since_s is None:  # a change of status has been logged as it came
            self._since_s = self._told_s = now_s
        elif now_s - self._told_s >= AGAIN_S:
            self._told_s = now_s
            what = self._missing() if unheard else detail
            self._node.get_logger().warning(f"has waited {now_s - self._since_s:.0f} s: {what}")

    def _missing(self) -> str:
        topics = self._loop.contract.topics
        return "; ".join(self._told_of(topics[alias]) for alias in self._loop.account.unheard)

    def _told_of(self, topic: Topic) -> str:
        qos = qos_of(topic, default=ReliabilityPolicy.BEST_EFFORT)
        wanted = f"{topic.type}, {qos.reliability.name}, {qos.durability.name}, depth {qos.depth}"
        name = self._node.resolve_topic_name(topic.topic)
        infos = self._node.get_publishers_info_by_topic(name)
        found = strangers(self._node, topic)
        if topic.topic in self._problems:
            found.append(self._problems[topic.topic])
        if not infos:
            found.append("nobody publishes it")
        elif not found:
            found.append(f"{len(infos)} publish it, nothing has come")
        return f"{name} ({wanted}): {', '.join(found)}"


def strangers(node: Any, topic: Topic) -> list[str]:
    """Publishers of another type on a topic, in words: not every middleware reports them."""
    name = node.resolve_topic_name(topic.topic)
    types = {info.topic_type for info in node.get_publishers_info_by_topic(name)}
    return [f"{name} is published as {t}" for t in sorted(types - {topic.type})]
