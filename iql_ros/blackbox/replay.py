"""A black box lived again: the same messages, calls and times through a fresh controller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rosbags.typesys.store import Typestore

from iql_ros.blackbox.recording import Decided, Noted, Received, Recording
from iql_ros.bundles.format import Support
from iql_ros.control.command import Command
from iql_ros.controller import Controller, Policy


@dataclass(frozen=True)
class Relived:
    """One decision, then and now.

    Attributes:
        then: what the controller had decided.
        now: what it decides from the recording; None if it decides nothing.
    """

    then: Command
    now: Command | None

    @property
    def is_same(self) -> bool:
        """Whether status and every published byte agree."""
        now = self.now
        return (
            now is not None
            and now.status is self.then.status
            and dict(now.payloads) == dict(self.then.payloads)
        )


def relive(
    recording: Recording, policy: Policy, types: Typestore, support: Support | None = None
) -> Iterator[Relived]:
    """Yields each decision of a recording beside the one that a fresh controller takes.

    The time that the policy took is the recorded one, as decisions may hang on it.

    Args:
        recording: of a black box.
        policy: on the backend that the robot had, for the same bits.
        types: message definitions of the contract's topics.
        support: from the bundle.
    """
    clock = _RecordedClock()
    controller = Controller(recording.contract, policy, types, support=support, clock=clock)
    controller.restore(recording.state)
    for event in recording.events:
        match event:
            case Received(alias, t_ns, payload):
                controller.put(alias, t_ns, payload)
            case Noted(kind):
                (controller.release if kind == "release" else controller.restart)()
            case Decided(kind, then, arguments):
                clock.policy_s = then.policy_s
                yield Relived(then, _decide(controller, kind, then.t_ns, **arguments))


def _decide(
    controller: Controller, kind: str, t_ns: int, speed: float = 1.0, reason: str = ""
) -> Command | None:
    match kind:
        case "tick":
            return controller.tick(t_ns, speed=speed)
        case "overdue":
            return controller.overdue(t_ns)
        case "halt":
            return controller.halt(reason, t_ns)
        case _:
            return controller.stop(t_ns)


class _RecordedClock:
    """Reads 0, then how long the policy took; so their difference is that to the bit."""

    def __init__(self) -> None:
        self.policy_s = 0.0
        self._is_second = True

    def __call__(self) -> float:
        self._is_second = not self._is_second
        return self.policy_s if self._is_second else 0.0
