"""What becomes of messages between the sensors and the controller: lost, late, frozen, wrong."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Sequence

import numpy as np

from iql_ros.contract import Contract
from iql_ros.fields import FieldPlan
from iql_ros.payloads.messages import Struct, message_tree
from iql_ros.sampler import SECOND_NS
from iql_ros.wire import Reader, make_types
from sim.scenarios import Fault, Scenario
from sim.world import Message

_STAMP = slice(4, 12)  # behind the CDR header, where std_msgs/Header begins with its time


class Stream:
    """Takes what the sensors send and gives what arrives, one episode long.

    Attributes:
        fault_ns: when the fault begins; None if the scenario has none.
    """

    def __init__(
        self, scenario: Scenario, contract: Contract, start_ns: int, rng: np.random.Generator
    ) -> None:
        """Draws the episode's fault."""
        self._rng, self._drop = rng, scenario.drop
        self._jitter_ns = round(scenario.jitter_s * SECOND_NS)
        self._late: list[tuple[int, int, Message]] = []
        self._count = 0
        self.fault_ns: int | None = None
        fault = scenario.fault
        if fault is not None:
            topics = list(contract.inputs(signals=False))
            drawn = topics[int(rng.integers(len(topics)))]
            self._fault = _Break(fault, fault.topic or drawn, contract)
            self.fault_ns = start_ns + round(rng.uniform(*fault.at_s) * SECOND_NS)
            lasts = None if fault.for_s is None else round(fault.for_s * SECOND_NS)
            self._healed_ns = None if lasts is None else self.fault_ns + lasts
        self._is_sound = fault is None and not self._drop and not self._jitter_ns

    def __call__(self, messages: Sequence[Message], now_ns: int) -> Sequence[Message]:
        """The messages that have arrived by now, in the order of their arrival."""
        if self._is_sound:
            return messages
        for message in messages:
            sent = self._sent(message)
            if sent is not None:
                self._count += 1
                heapq.heappush(self._late, (sent.arrival_ns, self._count, sent))
        arrived = []
        while self._late and self._late[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._late)[2])
        return arrived

    def _sent(self, message: Message) -> Message | None:
        # Drawn for every message, so that a later one has the same luck whatever became of this.
        luck, lateness = self._rng.random(2)
        if luck < self._drop:
            return None
        if self._jitter_ns:
            message = message._replace(
                arrival_ns=message.arrival_ns + int(lateness * self._jitter_ns)
            )
        if self.fault_ns is None:
            return message
        lasts = self._healed_ns is None or message.arrival_ns < self._healed_ns
        return self._fault(message, message.arrival_ns >= self.fault_ns and lasts)


class _Break:
    """A fault of one topic: gives what becomes of each message.

    Attributes:
        stamped: whether the topic's messages have a header.
        held: the last sound payload.
    """

    def __init__(self, fault: Fault, alias: str, contract: Contract) -> None:
        self._alias, self._broken = alias, _BROKEN[fault.kind]
        self.delay_ns = round(fault.delay_s * SECOND_NS)
        types, msgtype = make_types(contract.definitions), contract.topics[alias].type
        plan = FieldPlan(contract, [field.name for field in contract.observations])
        self._reader = Reader(types, msgtype, plan.paths.get(alias, []))
        header = message_tree(types, msgtype, "cdr").field("header")
        self.stamped = isinstance(header, Struct) and header.name == "std_msgs/msg/Header"
        self.held: bytes | None = None

    def __call__(self, message: Message, is_broken: bool) -> Message | None:
        if message.alias != self._alias:
            return message
        if not is_broken:
            self.held = message.payload
            return message
        return self._broken(self, message)

    def slots(self, payload: bytes) -> tuple[tuple[int, str], ...]:
        """(start, struct code) of the values that the policy reads."""
        self._reader.read(payload)
        alike = (layout for layout in self._reader.layouts if layout.size == len(payload))
        return next(layout.slots for layout in alike if layout.fits(payload))


def _dead(fault: _Break, message: Message) -> Message | None:
    return None


def _delayed(fault: _Break, message: Message) -> Message | None:
    return message._replace(arrival_ns=message.arrival_ns + fault.delay_ns)


def _frozen(fault: _Break, message: Message) -> Message | None:
    """The same values under new stamps, as of a driver whose sensor hangs."""
    held = bytearray(message.payload if fault.held is None else fault.held)
    if fault.stamped:
        held[_STAMP] = message.payload[_STAMP]
    return message._replace(payload=bytes(held))


def _nan(fault: _Break, message: Message) -> Message | None:
    payload = bytearray(message.payload)
    for start, code in fault.slots(message.payload):
        if code in "fd":
            struct.pack_into(f"<{code}", payload, start, float("nan"))
    return message._replace(payload=bytes(payload))


def _swapped(fault: _Break, message: Message) -> Message | None:
    """The first two values that the policy reads change places, as of two plugs."""
    payload = bytearray(message.payload)
    (first, code), (second, other) = (*fault.slots(message.payload), (0, ""), (0, ""))[:2]
    if code == other:
        size = struct.calcsize(f"<{code}")
        payload[first : first + size] = message.payload[second : second + size]
        payload[second : second + size] = message.payload[first : first + size]
    return message._replace(payload=bytes(payload))


_BROKEN: dict[str, Callable[[_Break, Message], Message | None]] = {
    "dead": _dead,
    "delayed": _delayed,
    "frozen": _frozen,
    "nan": _nan,
    "swapped": _swapped,
}
