"""Subscriptions and publishers of the contract's topics, and what does not fit at the other end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

from iql_ros.contracts.schema import Topic
from iql_ros.nodes.types import message_class

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
Undo = Callable[[], object]


class Wiring:
    """Everything of a configured node that has to be destroyed again.

    Attributes:
        problems: by topic, why the other end and this one do not fit.
    """

    def __init__(self, node: Any) -> None:
        """Nothing yet."""
        self._node = node
        self._undo: list[Undo] = []
        self.problems: dict[str, str] = {}

    def subscribe(self, inputs: Any, topic: Topic, receive: Callable[[bytes], None]) -> None:
        """Has each payload of a topic given to `receive`, through the node `inputs`."""
        subscription = inputs.create_subscription(
            message_class(topic.type),
            self._node.resolve_topic_name(topic.topic),
            receive,
            qos_of(topic, default=ReliabilityPolicy.BEST_EFFORT),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._misfit(topic.topic, "publisher", event),
                incompatible_type=lambda event: self._mistype(topic, event),
            ),
        )
        self._undo.append(lambda: inputs.destroy_subscription(subscription))

    def advertise(self, topic: Topic, suffix: str) -> Any:
        """A lifecycle publisher of a command topic."""
        publisher = self._node.create_lifecycle_publisher(
            message_class(topic.type),
            topic.topic + suffix,
            qos_of(topic, default=ReliabilityPolicy.RELIABLE),
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=lambda event: self._misfit(topic.topic, "subscriber", event),
                incompatible_type=lambda event: self._mistype(topic, event),
            ),
        )
        self._undo.append(lambda: self._node.destroy_lifecycle_publisher(publisher))
        return publisher

    def publisher(self, message: Any, name: str, qos: QoSProfile | int) -> Any:
        """A publisher that speaks in every state."""
        publisher = self._node.create_publisher(message, name, qos)
        self._undo.append(lambda: self._node.destroy_publisher(publisher))
        return publisher

    def timer(self, period_s: float, call: Callable[[], None], clock: Any) -> None:
        """Calls `call` every `period_s` of `clock`."""
        timer = self._node.create_timer(period_s, call, clock=clock)
        self._undo.append(lambda: self._node.destroy_timer(timer))

    def undo(self) -> None:
        """Destroys everything, the newest first."""
        while self._undo:
            self._undo.pop()()

    def _misfit(self, name: str, other: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._note(
            name,
            f"{name}: a {other} does not fit, policy {policy}: "
            f"set this topic's qos in the contract",
        )

    def _mistype(self, topic: Topic, event: Any) -> None:
        self._note(topic.topic, f"{topic.topic}: the other end has another type than {topic.type}")

    def _note(self, name: str, text: str) -> None:
        if self.problems.get(name) != text:
            self.problems[name] = text
            self._node.get_logger().warning(text)


def qos_of(topic: Topic, default: ReliabilityPolicy) -> QoSProfile:
    """What the contract says of a topic; `default` where it says nothing of reliability."""
    reliability = {
        None: default,
        "reliable": ReliabilityPolicy.RELIABLE,
        "best_effort": ReliabilityPolicy.BEST_EFFORT,
    }[topic.qos.reliability]
    durability = (
        DurabilityPolicy.TRANSIENT_LOCAL
        if topic.qos.durability == "transient_local"
        else DurabilityPolicy.VOLATILE
    )
    return QoSProfile(depth=topic.qos.depth, reliability=reliability, durability=durability)
