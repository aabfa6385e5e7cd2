"""The messages of one log in their order of effect, after every doubt about clocks is settled.

What had to be decided on the way goes to the log's findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Messages, Times, max_age_ns, visible
from training.conversion.clocks import (
    LARGEST_OFFSET_S,
    WALL_NS,
    clock_resets,
    common_era,
    header_clock,
    segment_numbers,
    stamp_fault,
)
from training.conversion.remarks import Facts, count, note_bursts, note_clock, note_reading
from training.conversion.streams import CLOCK, Stream, nanoseconds, read_streams
from training.logs import Log
from training.logs.log import note

AHEAD_SHARE = 0.01
"""A trigger with more stamps of the future than this is worth a sentence."""


@dataclass(frozen=True, eq=False)
class Recording(Mapping[str, Messages]):
    """What a contract needs of one log. As a mapping: the topics of a log of one segment.

    Attributes:
        name: of the log, for errors.
        segments: stretches in which the receive clock ran on, in file order; each by alias,
            as `sampler.visible` returns them.
        resets_ns: for each segment, when /clock went backwards.
        facts: numbers about topics and clocks, `<what>_<alias>`.
        findings: the log's own list, to which conversion adds sentences.
    """

    name: str
    segments: Sequence[Mapping[str, Messages]]
    resets_ns: Sequence[Times]
    facts: Mapping[str, int | float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def _only(self) -> Mapping[str, Messages]:
        if len(self.segments) != 1:
            raise LogError(
                f"{self.name}: the recorder's clock was set back {len(self.segments) - 1} times, "
                "so no single time runs through this log: it converts, but cannot be replayed"
            )
        return self.segments[0]

    def __getitem__(self, alias: str) -> Messages:
        return self._only[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self._only)

    def __len__(self) -> int:
        return len(self._only)


def read_topics(log: Log, contract: Contract, plan: FieldPlan) -> Recording:
    """Messages of all topics that the contract reads or commands, as they take effect.

    Args:
        log: an open log.
        contract: names topics and types.
        plan: gives the paths of the input topics.

    Raises:
        LogError: a topic is missing, empty, of another type, lacks a wanted element, or has
            a clock that cannot be brought together with the others.
    """
    streams = _of_one_era(log, read_streams(log, contract, plan))
    facts: Facts = {}
    parts = _segments(log, streams)
    segments = [
        {
            alias: _messages(log, contract, alias, stream, facts)
            for alias, stream in part.items()
            if alias != CLOCK
        }
        for part in parts
    ]
    for alias in segments[0]:
        note_reading(log.findings, streams[alias], facts, alias)
        note_clock(log.findings, contract, alias, streams, facts)
        for segment in segments:
            note_bursts(log.findings, streams[alias], segment[alias].arrival_ns, facts, alias)
    resets = [_resets(part) for part in parts]
    if went_back := sum(map(len, resets)):
        facts["clock_resets"] = went_back
        note(log.findings, f"{CLOCK} went back {went_back} times: each ends an episode, as a reset")
    return Recording(str(log.path), segments, resets, facts, log.findings)


def _of_one_era(log: Log, streams: Mapping[str, Stream]) -> dict[str, Stream]:
    """The streams without messages of the other era, where receive times are of two."""
    names = {True: "wall", False: "simulated"}
    times = {alias: stream.arrival_ns for alias, stream in streams.items()}
    needed = [alias for alias in streams if alias != CLOCK]
    wall = common_era(times, needed)
    if wall is None:
        eras = [f"{streams[a].topic} {names[bool(times[a][0] >= WALL_NS)]}" for a in needed]
        raise LogError(
            f"{log.path}: its topics were received in different times ({', '.join(eras)}): "
            "record again with one value of use_sim_time"
        )
    kept = {alias: (t_ns >= WALL_NS) == wall for alias, t_ns in times.items()}
    lost = sum(int((~keep).sum()) for keep in kept.values())
    if not lost:
        return dict(streams)
    note(
        log.findings,
        f"some receive times are wall time, some simulated time or time since boot: "
        f"{names[wall]} time was taken, {lost} messages of the other left out",
    )
    return {alias: stream.only(kept[alias]) for alias, stream in streams.items()}


def _segments(log: Log, streams: Mapping[str, Stream]) -> list[Mapping[str, Stream]]:
    """The streams, cut where the recorder's clock was set back."""
    numbers = segment_numbers({alias: stream.arrival_ns for alias, stream in streams.items()})
    segments = 1 + max(int(of.max(initial=0)) for of in numbers.values())
    if segments == 1:
        return [streams]
    lost = sum(int((of < 0).sum()) for of in numbers.values())
    note(
        log.findings,
        f"the recorder's clock was set back {segments - 1} times: each of the {segments} stretches "
        "was converted for itself"
        + (f", {lost} messages of sparse topics that fit none or several left out" if lost else ""),
    )
    return [
        {alias: stream.only(numbers[alias] == k) for alias, stream in streams.items()}
        for k in range(segments)
    ]


def _messages(log: Log, contract: Contract, alias: str, stream: Stream, facts: Facts) -> Messages:
    """One topic of one segment as it takes effect."""
    holds = contract.topics[alias].on_nonfinite == "hold"
    stamp_ns = _trusted_stamps(log, stream)
    if alias == contract.tick.trigger:
        _note_ahead(log, stream, stamp_ns)
    limit_ns = max_age_ns(contract, alias)
    messages = visible(Messages(stream.arrival_ns, stamp_ns, stream.rows), holds, limit_ns)
    untimely = int((stamp_ns - stream.arrival_ns > limit_ns).sum())
    count(facts, f"skipped_ahead_{alias}", untimely)
    if untimely:
        note(
            log.findings,
            f"{stream.topic}: {untimely} stamps lie further ahead of the receive time than its "
            f"max_age_s of {limit_ns / SECOND_NS:g} s: those messages never count",
        )
    if not len(messages.rows) and len(stream.rows):
        why = "has a stamp too far ahead" if untimely else "holds a NaN or infinity"
        raise LogError(f"{log.path}: every message of {stream.topic} {why}")
    if holds:
        bad = ~np.isfinite(stream.rows).all(axis=1)
        count(facts, f"skipped_nonfinite_{alias}", int(bad.sum()))
        if bad.any():
            first_s = (stream.arrival_ns[bad].min() - stream.arrival_ns.min()) / SECOND_NS
            note(
                log.findings,
                f"{stream.topic}: {int(bad.sum())} messages with a NaN or infinity were skipped, "
                f"the first at {first_s:.2f} s (on_nonfinite: hold)",
            )
    return messages


def _note_ahead(log: Log, stream: Stream, stamp_ns: Times) -> None:
    ahead = int((stamp_ns > stream.arrival_ns).sum())
    if ahead > AHEAD_SHARE * len(stamp_ns):
        note(
            log.findings,
            f"{stream.topic}: {ahead} of {len(stamp_ns)} stamps lie ahead of the receive time: the "
            "tick that such a message starts sees the one before it, here as on the robot: bring "
            "the clocks together, or say clock: receive",
        )


def _trusted_stamps(log: Log, stream: Stream) -> Times:
    """The times that the messages count for, shape (N,).

    The node cannot estimate an offset before it must act, so offsets are not taken off here
    either: a header clock too far from the receive clock is refused.
    """
    if stream.stamp_ns is None or not len(stream.rows):
        return stream.arrival_ns
    if (fault := stamp_fault(stream.arrival_ns, stream.stamp_ns)) is not None:
        note(
            log.findings,
            f"{stream.topic}: {fault}, so receive time was taken: say clock: receive in the "
            "contract, since the node cannot know this in advance",
        )
        return stream.arrival_ns
    clock = header_clock(stream.arrival_ns, stream.stamp_ns)
    if clock.largest_s > LARGEST_OFFSET_S:
        raise LogError(
            f"{log.path}: the header clock of {stream.topic} is {clock}, limit "
            f"{LARGEST_OFFSET_S} s: use clock: receive, or bring the clocks together (NTP, "
            "use_sim_time) and record again"
        )
    return stream.stamp_ns


def _resets(part: Mapping[str, Stream]) -> Times:
    if CLOCK not in part:
        return np.zeros(0, np.int64)
    return clock_resets(part[CLOCK].arrival_ns, nanoseconds(part[CLOCK].rows))
