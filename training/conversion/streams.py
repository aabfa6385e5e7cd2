"""The topics of a log, read block by block into columns, in the order of the file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError, LogError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Times
from iql_ros.wire import Encoding, Payloads, Reader, make_types
from training.logs import Block, Log

Array = NDArray[np.float64]

STAMP = ["header.stamp.sec", "header.stamp.nanosec"]
CLOCK, CLOCK_TYPE, CLOCK_PATHS = "/clock", "rosgraph_msgs/msg/Clock", ["clock.sec", "clock.nanosec"]
SAMPLED_STAMPS = 128
FEWEST_STAMPS = 4
EVERY_BLOCK = 8
"""Stamps looked at in the first and in late blocks of a topic whose receive time counts, and how
many late blocks pass in between: only clocks are compared, and all stamps would cost as much as
the wanted values."""


@dataclass(frozen=True)
class Stream:
    """One topic in file order.

    Attributes:
        topic: its absolute name.
        arrival_ns: receive times, shape (N,).
        rows: the wanted values, shape (N, W).
        stamp_ns: header stamps, shape (N,); None where receive time counts.
        sampled_ns: receive times and header stamps of some messages, shape (M, 2) each; of
            none, if the type has no header.
        skipped: messages that lack a wanted element, and the reason for the first.
        orders: in how many orders the wanted elements came.
    """

    topic: str
    arrival_ns: Times
    rows: Array
    stamp_ns: Times | None
    sampled_ns: Times
    skipped: tuple[int, str]
    orders: int

    def only(self, keep: NDArray[np.bool_]) -> Stream:
        """The stream without the messages that are not to be kept, shape (N,)."""
        stamp_ns = None if self.stamp_ns is None else self.stamp_ns[keep]
        return Stream(
            self.topic,
            self.arrival_ns[keep],
            self.rows[keep],
            stamp_ns,
            self.sampled_ns,
            self.skipped,
            self.orders,
        )


def read_streams(log: Log, contract: Contract, plan: FieldPlan) -> dict[str, Stream]:
    """All topics that the contract reads or commands by alias, and /clock where there is one.

    Raises:
        LogError: a topic is missing, empty, of another type, or lacks a wanted element.
    """
    aliases = dict.fromkeys((*contract.inputs(signals=True), *contract.outputs))
    intakes = {alias: _intake(log, contract, plan, alias) for alias in aliases}
    clock = log.topics.get(CLOCK)
    if clock is not None and clock.msgtype == CLOCK_TYPE and clock.count != 0:
        types = make_types({}, ros1=clock.encoding == "ros1")
        reader = Reader(types, CLOCK_TYPE, CLOCK_PATHS, cast(Encoding, clock.encoding))
        intakes[CLOCK] = _Intake(CLOCK, reader)
    intakes_of = defaultdict(list)
    for intake in intakes.values():
        intakes_of[intake.topic].append(intake)
    for block in log.blocks(tuple(intakes_of)):
        for intake in intakes_of[block.topic]:
            intake.take(block)
    streams = {alias: intake.stream() for alias, intake in intakes.items()}
    for alias in aliases:
        if not len(streams[alias].rows):
            why = f": {streams[alias].skipped[1]}" if streams[alias].skipped[0] else ""
            raise LogError(f"{log.path}: topic {streams[alias].topic} has no usable message{why}")
    return streams


@dataclass
class _Intake:
    """What has been read of one topic.

    `stamps` reads header stamps where these do not count; `reads_stamps` says that the last
    two columns of `reader` are those that do.
    """

    topic: str
    reader: Reader
    stamps: Reader | None = None
    reads_stamps: bool = False
    picks: bool = False
    times: list[Times] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    samples: list[tuple[Times, Array]] = field(default_factory=list)
    orders: set[tuple[int, ...]] = field(default_factory=set)
    blocks: int = 0
    skipped: int = 0
    absent: str = ""

    def take(self, block: Block) -> None:
        values, present = self.reader.read_many(block.payloads)
        if present.all():
            self.times.append(block.t_ns)
            self.rows.append(values)
        else:
            first = int(np.flatnonzero(~present)[0])
            self.absent = self.absent or self.reader.why_absent(block.payloads[first])
            self.skipped += int((~present).sum())
            self.times.append(block.t_ns[present])
            self.rows.append(values[present])
        if self.picks:
            self.orders |= _orders(self.reader)
        self.blocks += 1
        is_early = self.blocks <= EVERY_BLOCK
        if self.stamps is not None and (is_early or self.blocks % EVERY_BLOCK == 0):
            wanted = max(FEWEST_STAMPS, SAMPLED_STAMPS >> len(self.samples))
            some = slice(None, None, max(1, -(-len(block.t_ns) // wanted)))
            whole = block.payloads
            part = Payloads(whole.data, whole.starts[some], whole.lengths[some])
            self.samples.append((block.t_ns[some], self.stamps.read_many(part)[0]))

    def stream(self) -> Stream:
        arrival = np.concatenate(self.times) if self.times else np.zeros(0, np.int64)
        rows = np.concatenate(self.rows) if self.rows else np.zeros((0, self.reader.width))
        sampled = np.zeros((0, 2), np.int64)
        stamp = None
        if self.reads_stamps:
            stamp, rows = nanoseconds(rows[:, -2:]), rows[:, :-2]
            sampled = np.stack([arrival, stamp], axis=1)
        elif self.samples:
            times, stamps = (np.concatenate(part) for part in zip(*self.samples, strict=True))
            sampled = np.stack([times, nanoseconds(stamps)], axis=1)
        skipped = (self.skipped, self.absent)
        return Stream(self.topic, arrival, rows, stamp, sampled, skipped, len(self.orders))


def _intake(log: Log, contract: Contract, plan: FieldPlan, alias: str) -> _Intake:
    topic = contract.topics[alias]
    found = log.topics.get(topic.absolute)
    if found is None:
        raise LogError(
            f"{log.path}: topic {topic.absolute} ({alias}) is not in this log: it has "
            f"{', '.join(sorted(log.topics)) or 'no topics'}"
        )
    if found.msgtype != topic.type:
        raise LogError(
            f"{log.path}: topic {topic.absolute} is {found.msgtype} in this log, "
            f"the contract says {topic.type}: change the contract, or the topic"
        )
    if found.count == 0:
        raise LogError(f"{log.path}: topic {topic.absolute} has no messages")
    paths = [*plan.paths.get(alias, []), *(a.path for a in contract.actions if a.topic == alias)]
    embedded = {found.msgtype: found.definition} if found.definition else {}
    types = make_types({**contract.definitions, **embedded}, ros1=found.encoding == "ros1")
    encoding = cast(Encoding, found.encoding)
    picks = any("[" in path for path in paths)
    uses_stamps = topic.clock == "header"
    try:
        reader = Reader(types, topic.type, paths + STAMP * uses_stamps, encoding)
    except ContractError as error:
        raise ContractError(f"topic {topic.absolute} of {log.path}: {error}") from None
    try:
        stamps = None if uses_stamps else Reader(types, topic.type, STAMP, encoding)
    except ContractError:  # the type has no header
        stamps = None
    return _Intake(topic.absolute, reader, stamps, uses_stamps, picks)


def nanoseconds(values: Array) -> Times:
    """Times from columns of seconds and nanoseconds, shape (N, 2)."""
    seconds, nanoseconds = values.T.astype(np.int64)
    total: Times = seconds * SECOND_NS + nanoseconds
    return total


def _orders(reader: Reader) -> set[tuple[int, ...]]:
    """How the wanted elements lay to each other in the messages read last."""
    starts = [[start for start, _ in layout.slots] for layout in reader.layouts if layout.slots]
    return {tuple(start - group[0] for start in group) for group in starts}
