"""The messages of one log that a contract asks for, as rows of numbers in their order of effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError, LogError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Messages, visible
from iql_ros.wire import Encoding, Reader, make_types
from training.logs import Log

STAMP = ["header.stamp.sec", "header.stamp.nanosec"]
LARGEST_CLOCK_OFFSET_S = 1.0
"""A header clock further than this from the receive clock cannot share a grid with it."""


def read_topics(log: Log, contract: Contract, plan: FieldPlan) -> dict[str, Messages]:
    """Messages of all topics that the contract reads or commands, as they take effect.

    Args:
        log: an open log.
        contract: names topics and types.
        plan: gives the paths of the input topics.

    Raises:
        LogError: a topic is missing, empty, of another type, or lacks a wanted element.
    """
    aliases = dict.fromkeys((*contract.inputs(signals=True), *contract.outputs))
    readers = {alias: _reader(log, contract, plan, alias) for alias in aliases}
    aliases_of = defaultdict(list)
    for alias in aliases:
        aliases_of[contract.topics[alias].absolute].append(alias)
    parts: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = defaultdict(list)
    absent: dict[str, str] = {}
    for block in log.blocks(tuple(aliases_of)):
        for alias in aliases_of[block.topic]:
            values, present = readers[alias].read_many(block.payloads)
            parts[alias].append((block.t_ns[present], values[present]))
            if not present.all() and alias not in absent:
                first = block.payloads[int(np.flatnonzero(~present)[0])]
                absent[alias] = readers[alias].why_absent(first)
    return {alias: _messages(log, contract, alias, parts[alias], absent) for alias in aliases}


def _reader(log: Log, contract: Contract, plan: FieldPlan, alias: str) -> Reader:
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
    if topic.clock == "header":
        paths += STAMP
    embedded = {found.msgtype: found.definition} if found.definition else {}
    types = make_types({**contract.definitions, **embedded}, ros1=found.encoding == "ros1")
    try:
        return Reader(types, topic.type, paths, cast(Encoding, found.encoding))
    except ContractError as error:
        raise ContractError(f"topic {topic.absolute} of {log.path}: {error}") from None


def _messages(
    log: Log,
    contract: Contract,
    alias: str,
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    absent: Mapping[str, str],
) -> Messages:
    topic = contract.topics[alias]
    arrival = np.concatenate([t for t, _ in parts]) if parts else np.zeros(0, np.int64)
    if not len(arrival):
        why = f": {absent[alias]}" if alias in absent else ""
        raise LogError(f"{log.path}: topic {topic.absolute} has no usable message{why}")
    rows = np.concatenate([values for _, values in parts])
    stamp = arrival
    if topic.clock == "header":
        seconds, nanoseconds = rows[:, -2:].T.astype(np.int64)
        stamp = seconds * SECOND_NS + nanoseconds
        rows = rows[:, :-2]
        offset_s = float(np.median(arrival - stamp)) / SECOND_NS
        if abs(offset_s) > LARGEST_CLOCK_OFFSET_S:
            raise LogError(
                f"{log.path}: the header clock of {topic.absolute} is {offset_s:.3f} s behind the "
                f"receive clock, limit {LARGEST_CLOCK_OFFSET_S} s: use clock: receive"
            )
    messages = visible(Messages(arrival, stamp, rows), topic.on_nonfinite == "hold")
    if not len(messages.rows):
        raise LogError(f"{log.path}: every message of {topic.absolute} holds a NaN or infinity")
    return messages
