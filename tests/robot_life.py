"""What may befall a controller, as a list of events, and a toy robot to whom it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from iql_ros.blackbox.ring import BlackBox
from iql_ros.bundles.format import Support
from iql_ros.contract import Contract
from iql_ros.control.command import Command
from iql_ros.controller import Controller
from iql_ros.wire import make_types
from tests.bags import MS, float64, message, payload

TYPES = make_types({})
START_NS = 10_000_000_000_000
SUPPORT = Support(
    mean=(0.0,) * 4,
    precision=tuple(tuple(row) for row in np.eye(4).tolist()),
    threshold=3.0,
    alpha=0.05,
    false_alarm_bound=0.05,
    episodes=19,
    constant=(),
)


def contract(safety: dict[str, Any] | None = None, **changes: Any) -> Contract:
    """A robot with a speed that slews and a position that is measured; a switch; a memory."""
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"trigger": "state"},
        "topics": {
            "state": {
                "topic": "/state",
                "type": "geometry_msgs/msg/PointStamped",
                "max_age_s": 0.2,
                "clock": "header",
            },
            "goal": {"topic": "/goal", "type": "std_msgs/msg/Float64", "max_age_s": 1.0},
            "joy": {"topic": "/joy", "type": "std_msgs/msg/Float64", "max_age_s": 0.5},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        "observations": [
            {"name": "x", "topic": "state", "path": "point.x"},
            {"name": "goal", "topic": "goal", "path": "data"},
            {"name": "before", "history_of": "x", "steps": 2},
        ],
        "actions": [
            {
                "name": "speed",
                "topic": "cmd",
                "path": "linear.x",
                "limits": [-2, 2],
                "slew": 5,
                "safe": 0.25,
            },
            {
                "name": "position",
                "topic": "cmd",
                "path": "linear.y",
                "limits": [-1, 1],
                "slew": 50,
                "safe": 0.5,
                "measured_by": "x",
            },
        ],
        "reward": {"expression": "-x"},
        "safety": safety or {},
    }
    return Contract.model_validate({**base, **changes})


def number(value: float) -> bytes:
    return payload("std_msgs/msg/Float64", float64(value))


def point(t_ns: int, x: float) -> bytes:
    """A PointStamped of an instant."""
    sec, nanosec = divmod(t_ns, 10**9)
    time = ("builtin_interfaces/msg/Time", {"sec": sec, "nanosec": nanosec})
    header = ("std_msgs/msg/Header", {"stamp": time, "frame_id": "map"})
    where = ("geometry_msgs/msg/Point", {"x": x, "y": 0.0, "z": 0.0})
    kind = "geometry_msgs/msg/PointStamped"
    return bytes(TYPES.serialize_cdr(message(kind, {"header": header, "point": where}), kind))


@dataclass(frozen=True)
class Happening:
    """One event: what, how long after the one before, and its value.

    Attributes:
        kind: state, goal, joy (valid messages of `value`), tick, overdue, halt, release,
            restart, stop; or bytes (`junk` on the topic `alias`).
        wait_ms: may be negative: the clock goes back.
        value: of the message, or the speed of a tick.
        answer: of the policy, in a tick: its two values, or what it does instead.
        took_ms: how long the policy takes.
    """

    kind: str
    wait_ms: int = 10
    value: float = 0.0
    answer: Any = (0.0, 0.0)
    took_ms: float = 0.1
    alias: str = "state"
    junk: bytes = b""


class Robot:
    """A controller with a policy that answers what a happening says."""

    def __init__(self, rules: Contract, box: BlackBox | None = None) -> None:
        self.contract = rules
        self.t_ns = START_NS
        self._clock_s = 0.0
        self._now = Happening("tick")
        self.controller = Controller(
            rules, self._policy, TYPES, support=SUPPORT, clock=lambda: self._clock_s, box=box
        )

    def _policy(self, observation: np.ndarray) -> Any:
        self._clock_s += self._now.took_ms / 1e3
        if callable(self._now.answer):
            return self._now.answer(observation)
        return np.array(self._now.answer, np.float32)

    def live(self, happening: Happening) -> Command | None:
        """Lets it happen; returns the command, if one was decided."""
        self._now = happening
        self.t_ns = t_ns = max(0, self.t_ns + happening.wait_ms * MS)
        controller = self.controller
        does: dict[str, Callable[[], Any]] = {
            "tick": lambda: controller.tick(t_ns, speed=happening.value),
            "overdue": lambda: controller.overdue(t_ns),
            "halt": lambda: controller.halt("button", t_ns),
            "stop": lambda: controller.stop(t_ns),
            "release": controller.release,
            "restart": controller.restart,
            "state": lambda: controller.put("state", t_ns, point(t_ns, happening.value)),
            "goal": lambda: controller.put("goal", t_ns, number(happening.value)),
            "joy": lambda: controller.put("joy", t_ns, number(happening.value)),
            "bytes": lambda: controller.put(happening.alias, t_ns, happening.junk),
        }
        result = does[happening.kind]()
        return result if isinstance(result, Command) else None


def healthy(seconds: float, **tick: Any) -> Iterator[Happening]:
    """A life in which all topics speak and the policy ticks at 20 Hz."""
    for i in range(round(seconds * 20)):
        yield Happening("state", 20, value=0.01 * (i % 50))
        yield Happening("goal", 10, value=0.5)
        yield Happening("joy", 10, value=1.0)
        yield Happening("tick", **{"value": 1.0, "answer": (1.0, 0.3), **tick})
