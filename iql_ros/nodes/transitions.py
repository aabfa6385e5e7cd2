"""What rclpy does not do for a transition: say what it raised."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

Node = TypeVar("Node", bound=Any)
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def told(transition: Transition[Node]) -> Transition[Node]:
    """Logs what a transition raises; rclpy swallows it without a trace."""

    @wraps(transition)
    def telling(node: Node, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:  # whatever it is must be told, and leave the node in on_error
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return telling
