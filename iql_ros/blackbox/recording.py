"""What a black box holds: a controller's state, and all that happened to it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from iql_ros.contract import Contract
from iql_ros.control.command import Command


# Tuples: one is made for every message and tick, at half the cost of a frozen dataclass.
class Received(NamedTuple):
    """A message that came in: its topic's alias, when, and its bytes."""

    alias: str
    t_ns: int
    payload: bytes


class Decided(NamedTuple):
    """A command, and the call that gave it: tick, overdue, stop or halt, with its arguments."""

    kind: str
    command: Command
    arguments: Mapping[str, Any]


class Noted(NamedTuple):
    """A call that gives no command: release or restart."""

    kind: str


Event = Received | Decided | Noted


@dataclass(frozen=True)
class Recording:
    """What a black box held at one moment.

    Attributes:
        contract: of the controller.
        about: what else identifies it, such as the bundle's digest.
        start_ns: about when it begins.
        state: what the controller remembered then, see `Controller.snapshot`.
        events: what happened since, in order.
    """

    contract: Contract
    about: Mapping[str, str]
    start_ns: int
    state: Mapping[str, Any]
    events: tuple[Event, ...]
