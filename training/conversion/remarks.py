"""Sentences and counts on what was peculiar about a topic, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iql_ros.contract import Contract
from iql_ros.sampler import SECOND_NS, Times
from training.conversion.clocks import (
    LARGEST_OFFSET_S,
    NOTABLE_DRIFT_S,
    WALL_NS,
    bursts,
    header_clock,
)
from training.conversion.streams import CLOCK, Stream
from training.logs.log import note

Facts = dict[str, int | float]


def note_clock(
    findings: list[str], contract: Contract, alias: str, streams: Mapping[str, Stream], facts: Facts
) -> None:
    """Says how a topic's header clock runs, whether or not it counts."""
    stream = streams[alias]
    arrival_ns, stamp_ns = stream.sampled_ns.T
    if not len(arrival_ns) or (stamp_ns == 0).all():
        return
    clock = header_clock(arrival_ns, stamp_ns)
    facts[f"clock_offset_s_{alias}"] = clock.offset_s
    facts[f"clock_drift_ppm_{alias}"] = clock.drift * 1e6
    if clock.largest_s <= LARGEST_OFFSET_S and abs(clock.drifted_s) < NOTABLE_DRIFT_S:
        return
    text = f"the header clock of {stream.topic} is {clock}"
    if np.median(stamp_ns) < WALL_NS <= np.median(arrival_ns):
        text += ": simulated time" + (" as on /clock" if CLOCK in streams else "")
        text += " in the header, wall time at the recorder"
    if contract.topics[alias].clock == "receive":
        text += ": receive time was taken"
    note(findings, text)


def note_reading(findings: list[str], stream: Stream, facts: Facts, alias: str) -> None:
    """Says what was peculiar about a topic's messages in the order of the file."""
    skipped, why = stream.skipped
    step = np.diff(stream.arrival_ns)
    unsorted = int((step < 0).sum())
    again = (
        len(step) + 1 - len(np.unique(stream.arrival_ns)) if unsorted else int((step == 0).sum())
    )
    count(facts, f"skipped_incomplete_{alias}", skipped)
    count(facts, f"duplicate_stamps_{alias}", again)
    count(facts, f"out_of_order_{alias}", unsorted)
    if skipped:
        note(findings, f"{stream.topic}: {skipped} messages were skipped: {why}")
    if stream.orders > 1:
        note(
            findings,
            f"{stream.topic}: its elements came in {stream.orders} orders: matched by name "
            "where the path names them, and by number elsewhere",
        )
    if again:
        note(
            findings,
            f"{stream.topic}: {again} of {len(step) + 1} messages have the receive time of "
            "another: of such, the last counts",
        )
    if unsorted:
        note(
            findings,
            f"{stream.topic}: {unsorted} messages lie in the file behind later ones: sorted",
        )


def note_bursts(
    findings: list[str], stream: Stream, arrival_ns: Times, facts: Facts, alias: str
) -> None:
    found = bursts(arrival_ns)
    count(facts, f"bursts_{alias}", len(found))
    if not found:
        return
    largest = max(found, key=lambda burst: burst.count)
    at_s = (largest.t_ns - arrival_ns[0]) / SECOND_NS
    when = f"after a pause of {largest.pause_s:.2f} s" if largest.pause_s else "at the start"
    note(
        findings,
        f"{stream.topic}: {largest.count} messages came at once {when} (at {at_s:.2f} s"
        + (f"; {len(found)} such bursts" if len(found) > 1 else "")
        + "): their receive times are later than what they tell of",
    )


def count(facts: Facts, name: str, number: int) -> None:
    """Adds to a count, which is absent while it is zero."""
    if number:
        facts[name] = facts.get(name, 0) + number
