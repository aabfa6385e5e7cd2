"""What is in a log, before anybody trains on it: each topic's rate, clocks and content.

One pass over the log. Of a topic its times are kept, 8 to 16 bytes a message; its payloads
are looked at block by block. Large payloads (images, clouds) only have their stamp read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import ContractError, LogError
from iql_ros.payloads.messages import Struct, message_tree
from iql_ros.sampler import SECOND_NS, Times
from iql_ros.wire import STAMP, Encoding, Payloads, Reader, make_types
from training.inspection.clock_facts import arrivals, stamp_facts
from training.inspection.facts import LogFacts, TopicFacts
from training.inspection.payloads import Census, Shape
from training.inspection.words import warnings_of
from training.logs import Block, Log, Topic

LARGE_PAYLOAD = 1 << 16


def inspect_log(log: Log, definitions: Mapping[str, str] | None = None) -> LogFacts:
    """Reads a log once and says what is in it.

    Args:
        log: an open log.
        definitions: message definitions by type, for types that neither the log embeds nor
            ROS has.

    Raises:
        LogError: nothing in it can be read.
    """
    given = definitions or {}
    scans = {topic.name: _Scan(topic, given) for topic in log.topics.values()}
    if not scans:
        raise LogError(f"{log.path}: it has no topic: was anything recorded?")
    for block in log.blocks(tuple(scans)):
        scans[block.topic].take(block)
    starts = [scan.first_ns for scan in scans.values() if scan.first_ns is not None]
    ends = [scan.last_ns for scan in scans.values() if scan.last_ns is not None]
    start_ns = min(starts)
    topics = tuple(scans[name].facts(start_ns) for name in sorted(scans))
    duration_s = (max(ends) - start_ns) / SECOND_NS
    findings = tuple(log.findings)
    return LogFacts(log.path, start_ns, duration_s, topics, findings, warnings_of(topics))


def topic_types(topic: Topic, given: Mapping[str, str]) -> tuple[Struct | None, str, str]:
    """The tree of a topic's type, where its definition is from, and why there is no tree."""
    embedded = {topic.msgtype: topic.definition} if topic.definition else {}
    origin = "embedded" if embedded else "given" if topic.msgtype in given else "standard"
    try:
        types = make_types({**given, **embedded}, ros1=topic.encoding == "ros1")
        return message_tree(types, topic.msgtype, cast(Encoding, topic.encoding)), origin, ""
    except (ContractError, LogError) as error:
        return None, origin if embedded else "unknown", str(error)


class _Scan:
    """One topic while the log is read."""

    def __init__(self, topic: Topic, given: Mapping[str, str]) -> None:
        self._topic = topic
        root, self._definition, self._unknown = topic_types(topic, given)
        self._census = Census(root, cast(Encoding, topic.encoding)) if root else None
        self._stamps = _stamp_reader(topic, root, given)
        self._times: list[Times] = []
        self._stamped: list[tuple[Times, Times]] = []
        self._bytes = 0
        self._content = _Content()
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def take(self, block: Block) -> None:
        if not len(block.t_ns):
            return
        self._times.append(np.array(block.t_ns))
        first, last = int(block.t_ns.min()), int(block.t_ns.max())
        self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
        self.last_ns = last if self.last_ns is None else max(self.last_ns, last)
        self._bytes += int(block.payloads.lengths.sum())
        if self._stamps is not None:
            stamps, present = _read_stamps(self._stamps, block.payloads)
            self._stamped.append((self._times[-1][present], stamps[present]))
        if self._census is not None and block.payloads.lengths.max() <= LARGE_PAYLOAD:
            for shape, _, values in self._census.sort(block.payloads):
                self._content.take(shape, values)

    def facts(self, start_ns: int) -> TopicFacts:
        times = np.concatenate(self._times) if self._times else np.zeros(0, np.int64)
        kinds = sorted(self._census.kinds if self._census else [], key=lambda kind: -kind.count)
        orders = dict.fromkeys(kind.shape.names for kind in kinds if kind.shape.names)
        stamped = [np.concatenate(part) for part in zip(*self._stamped, strict=True)]
        return TopicFacts(
            name=self._topic.name,
            msgtype=self._topic.msgtype,
            encoding=self._topic.encoding,
            definition=self._definition,
            unknown=self._unknown,
            count=len(times),
            mean_bytes=self._bytes / max(1, len(times)),
            receive=arrivals(times, start_ns),
            header=stamp_facts(*stamped) if stamped else None,
            layouts=len(kinds),
            numbers=kinds[0].shape.numbers if kinds else (),
            orders=tuple(orders),
            nonfinite=dict(self._content.nonfinite),
            sign_flips={where: n for where, n in self._content.sign_flips.items() if n},
            damaged=self._census.damaged if self._census else 0,
        )


class _Content:
    """Counts over the numbers of one topic."""

    def __init__(self) -> None:
        self.nonfinite: Counter[str] = Counter()
        self.sign_flips: Counter[str] = Counter()
        self._last: dict[str, NDArray[np.float64]] = {}

    def take(self, shape: Shape, values: NDArray[np.float64]) -> None:
        """Takes the rows of one layout, shape (rows, width), in file order."""
        if not len(values):
            return
        for numbers in shape.numbers:
            part = values[:, shape.columns(numbers)]
            if bad := int((~np.isfinite(part).all(axis=1)).sum()):
                self.nonfinite[numbers.path()] += bad
            if numbers.is_quaternion:
                before = self._last.get(numbers.where, part[0])
                row = np.concatenate([before[None], part])
                flips = (row[1:] * row[:-1]).sum(axis=1) < 0
                self.sign_flips[numbers.where] += int(flips.sum())
                self._last[numbers.where] = part[-1].copy()


def _stamp_reader(topic: Topic, root: Struct | None, given: Mapping[str, str]) -> Reader | None:
    """Reads the stamps of a type that begins with a header."""
    if root is None or not root.fields or root.fields[0][0] != "header":
        return None
    embedded = {topic.msgtype: topic.definition} if topic.definition else {}
    types = make_types({**given, **embedded}, ros1=topic.encoding == "ros1")
    try:
        return Reader(types, topic.msgtype, STAMP, cast(Encoding, topic.encoding))
    except ContractError:
        return None  # something else that is called header


def _read_stamps(reader: Reader, payloads: Payloads) -> tuple[Times, NDArray[np.bool_]]:
    """Stamps in ns, shape (N,), and which could be read."""
    try:
        values, present = reader.read_many(payloads)
    except LogError:
        values, present = np.zeros((len(payloads), 2)), np.zeros(len(payloads), bool)
        for i in range(len(payloads)):
            try:
                row = reader.read(payloads[i])
            except LogError:
                continue  # the census counts it
            if row is not None:
                values[i], present[i] = row, True
    whole = np.where(present[:, None], values, 0).astype(np.int64)
    return whole[:, 0] * SECOND_NS + whole[:, 1], present
