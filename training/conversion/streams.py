"""The topics of a log, read block by block into columns, in the order of the file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError, LogError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Times
from iql_ros.wire import STAMP, Encoding, Payloads, Reader, make_types
from training.conversion.row_file import RowFile
from training.logs import Block, Log

Array = NDArray[np.float64]

CLOCK, CLOCK_TYPE, CLOCK_PATHS = "/clock", "rosgraph_msgs/msg/Clock", ["clock.sec", "clock.nanosec"]
NO_TIMES = np.zeros(0, np.int64)
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
        rows: the wanted values, shape (N, W); they lie in a file.
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
        intakes[CLOCK] = _Intake(CLOCK, reader, None, counts=False, picks=False)
    intakes_of = defaultdict(list)
    for intake in intakes.values():
        intakes_of[intake.topic].append(intake)
    _keep_freed_memory()
    for block in log.blocks(tuple(intakes_of)):
        for intake in intakes_of[block.topic]:
            intake.take(block)
    streams = {alias: intake.stream() for alias, intake in intakes.items()}
    for alias in aliases:
        if not len(streams[alias].arrival_ns):
            why = f": {streams[alias].skipped[1]}" if streams[alias].skipped[0] else ""
            raise LogError(f"{log.path}: topic {streams[alias].topic} has no usable message{why}")
    return streams


def _keep_freed_memory() -> None:
    """Lets glibc give the memory of one block to the next instead of back to the kernel.

    It keeps twice the largest block that was ever freed, see "dynamic mmap threshold" in
    mallopt(3): one that nobody touches will do. Otherwise a fifth of the time goes to page faults.
    """
    np.empty(1 << 24, np.uint8)


class _Intake:
    """What has been read of one topic."""

    def __init__(
        self, topic: str, reader: Reader, stamps: Reader | None, *, counts: bool, picks: bool
    ) -> None:
        """Takes messages of `topic`.

        Args:
            topic: its absolute name.
            reader: of the wanted values and, if header stamps count, of those behind them.
            stamps: reads header stamps where they do not count.
            counts: whether header stamps count.
            picks: whether values are picked from lists, whose order may change.
        """
        self.topic = topic
        self._reader, self._stamps, self._counts, self._picks = reader, stamps, counts, picks
        self._rows = RowFile(reader.width - len(STAMP) * counts)
        self._times: list[Times] = []
        self._stamp_ns: list[Times] = []
        self._samples: list[Times] = []
        self._orders: set[tuple[int, ...]] = set()
        self._blocks = 0
        self._skipped = 0
        self._absent = ""

    def take(self, block: Block) -> None:
        try:
            values, present = self._reader.read_many(block.payloads)
        except LogError:
            block = self._readable(block)
            values, present = self._reader.read_many(block.payloads)
        t_ns = block.t_ns
        if not present.all():
            first = int(np.flatnonzero(~present)[0])
            self._absent = self._absent or self._reader.why_absent(block.payloads[first])
            self._skipped += int((~present).sum())
            t_ns, values = t_ns[present], values[present]
        if self._counts:
            self._stamp_ns.append(nanoseconds(values[:, -2:]))
            values = values[:, :-2]
        self._times.append(t_ns)
        self._rows.add(values)
        if self._picks:
            self._orders |= _orders(self._reader)
        self._blocks += 1
        if self._blocks <= EVERY_BLOCK or self._blocks % EVERY_BLOCK == 0:
            self._sample(block)

    def _readable(self, block: Block) -> Block:
        """The block without payloads that are no message; on the robot, too, they do not count."""
        whole = block.payloads
        rows = np.array([self._is_message(whole[row]) for row in range(len(whole))], np.bool_)
        self._skipped += int((~rows).sum())
        sound = Payloads(whole.data, whole.starts[rows], whole.lengths[rows])
        return Block(block.topic, block.t_ns[rows], sound)

    def _is_message(self, payload: memoryview) -> bool:
        try:
            self._reader.read(payload)
        except LogError as error:
            self._absent = self._absent or str(error)
            return False
        return True

    def _sample(self, block: Block) -> None:
        if self._stamps is None:
            return
        wanted = max(FEWEST_STAMPS, SAMPLED_STAMPS >> len(self._samples))
        some = slice(None, None, max(1, -(-len(block.t_ns) // wanted)))
        whole = block.payloads
        part = Payloads(whole.data, whole.starts[some], whole.lengths[some])
        stamp_ns = nanoseconds(self._stamps.read_many(part)[0])
        self._samples.append(np.stack([block.t_ns[some], stamp_ns], axis=1))

    def stream(self) -> Stream:
        """All that was taken."""
        arrival = np.concatenate([NO_TIMES, *self._times])
        stamp = np.concatenate([NO_TIMES, *self._stamp_ns]) if self._counts else None
        sampled = np.concatenate([np.zeros((0, 2), np.int64), *self._samples])
        if stamp is not None:
            sampled = np.stack([arrival, stamp], axis=1)
        skipped = (self._skipped, self._absent)
        rows = self._rows.rows()
        return Stream(self.topic, arrival, rows, stamp, sampled, skipped, len(self._orders))


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
    return _Intake(topic.absolute, reader, stamps, counts=uses_stamps, picks=picks)


def nanoseconds(values: Array) -> Times:
    """Times from columns of seconds and nanoseconds, shape (N, 2)."""
    seconds, nanoseconds = values.T.astype(np.int64)
    total: Times = seconds * SECOND_NS + nanoseconds
    return total


def _orders(reader: Reader) -> set[tuple[int, ...]]:
    """How the wanted elements lay to each other in the messages read last."""
    starts = [[start for start, _ in layout.slots] for layout in reader.layouts if layout.slots]
    return {tuple(start - group[0] for start in group) for group in starts}
