"""What the times of messages tell about the clocks that gave them: pure functions of times.

Times are int64 nanoseconds of shape (N,). A log may hold a robot's clock and the recorder's,
simulated and wall time, and a recorder whose clock was set back while it ran.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.sampler import SECOND_NS, Times

LARGEST_OFFSET_S = 1.0
"""A header clock further than this from the receive clock cannot share a grid with it."""
NOTABLE_DRIFT_S = 0.1
SET_BACKS_NS = (SECOND_NS // 10, SECOND_NS)
"""Receive times less out of order than this are jitter, and sorted: the first for topics of over
10 Hz, as ntpd sets a clock back that is 0.128 s off, the second for those of over 1 Hz."""
SPARSE_NS = SECOND_NS
"""A topic too sparse to show a set-back may begin or end by so much beside the others."""
WALL_NS = 10**9 * SECOND_NS
"""September 2001: before it lie simulated time and time since boot, after it wall time."""
CLOCK_RESET_NS = SECOND_NS // 10
"""Two publishers of /clock may disagree by less; a world that restarts goes back by more."""
WINDOWS = 32
BURST = 5


@dataclass(frozen=True)
class HeaderClock:
    """How a header clock ran beside the receive clock.

    Attributes:
        offset_s: receive time minus header time, the median, with drift taken off to the middle.
        drift: seconds by which the offset grows in a second of receive time.
        span_s: how long both were seen.
    """

    offset_s: float
    drift: float
    span_s: float

    @property
    def drifted_s(self) -> float:
        """By how much the offset grew in all."""
        return self.drift * self.span_s

    @property
    def largest_s(self) -> float:
        """The largest distance between the clocks, drift included."""
        return abs(self.offset_s) + abs(self.drifted_s) / 2

    def __str__(self) -> str:
        """Offset and drift in words, after "is"."""
        side = "behind" if self.offset_s >= 0 else "ahead of"
        text = f"{abs(self.offset_s):.3f} s {side} the receive clock"
        if abs(self.drifted_s) >= NOTABLE_DRIFT_S:
            text += f" (drifting by {self.drifted_s:+.3f} s in {self.span_s:.0f} s)"
        return text


def header_clock(arrival_ns: Times, stamp_ns: Times) -> HeaderClock:
    """Compares header stamps with the receive times of the same messages.

    Transport only ever delays, so drift is the slope of the offset's lower envelope: the
    median of the slopes between the least offsets of up to 32 windows (Theil and Sen). A
    start-up burst or a busy network does not bend it.
    """
    order = np.argsort(arrival_ns, kind="stable")
    t_s = (arrival_ns[order] - arrival_ns[order[0]]) / SECOND_NS
    offset_s = (arrival_ns - stamp_ns)[order] / SECOND_NS
    span_s = float(t_s[-1])
    drift = 0.0
    if span_s > 1 and len(t_s) >= 8:
        windows = np.array_split(np.arange(len(t_s)), min(WINDOWS, len(t_s) // 4))
        lowest = np.array([window[np.argmin(offset_s[window])] for window in windows])
        i, j = np.triu_indices(len(lowest), 1)
        apart = t_s[lowest[j]] - t_s[lowest[i]]
        rise = offset_s[lowest[j]] - offset_s[lowest[i]]
        drift = float(np.median(rise[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0.0
    middle = offset_s - drift * (t_s - span_s / 2)
    return HeaderClock(float(np.median(middle)), drift, span_s)


def stamp_fault(arrival_ns: Times, stamp_ns: Times) -> str | None:
    """Why header stamps cannot be the time of their messages, or None."""
    zero = int(((stamp_ns == 0) & (arrival_ns > SECOND_NS)).sum())
    if zero:
        return f"{zero} of {len(stamp_ns)} stamps are zero"
    whole = stamp_ns % SECOND_NS == 0
    if len(whole) >= 8 and whole.mean() > 0.9 and len(np.unique(stamp_ns)) < 0.7 * len(whole):
        return "the stamps are rounded to whole seconds"
    return None


def common_era(arrivals: Mapping[str, Times], needed: Collection[str]) -> bool | None:
    """Whether wall time (True) or simulated time (False) is that of a log's receive times.

    Returns:
        The era in which all `needed` topics have messages, and the most; None if neither.
    """
    counts = {}
    for wall in (True, False):
        numbers = {name: int(((t >= WALL_NS) == wall).sum()) for name, t in arrivals.items()}
        if all(numbers[name] for name in needed):
            counts[wall] = sum(numbers.values())
    return max(counts, key=lambda wall: counts[wall]) if counts else None


def set_backs(arrival_ns: Times) -> list[int]:
    """Where in a topic's file order its receive clock was set back.

    Chunks that are merely unsorted also jump back, but into time that has no message yet.
    A clock set back lives through the same time again: that tells them apart, and if the time
    is new, sorting is right in either case.

    Args:
        arrival_ns: of one topic, in file order.

    Returns:
        Numbers of the messages with which the time begins anew, ascending.
    """
    return max((_set_backs(arrival_ns, limit_ns) for limit_ns in SET_BACKS_NS), key=len)


def _set_backs(arrival_ns: Times, limit_ns: int) -> list[int]:
    """Those by more than a limit, where messages come more often than that."""
    step = np.diff(arrival_ns)
    if not (step < -limit_ns).any():
        return []
    cuts = np.flatnonzero(np.abs(step) > limit_ns) + 1
    found: list[int] = []
    start = back = 0
    for begin, end in zip([0, *cuts], [*cuts, len(arrival_ns)], strict=True):
        if begin and step[begin - 1] < 0:
            back = begin
        piece = arrival_ns[begin:end]
        low, high = piece.min() + limit_ns, piece.max() - limit_ns
        if low < high and start < back:
            earlier = arrival_ns[start:back]
            if ((earlier > low) & (earlier < high)).any():
                found.append(int(back))
                start = back
    return found


def segment_numbers(arrivals: Mapping[str, Times]) -> dict[str, NDArray[np.int64]]:
    """Which stretch of unbroken receive time each message belongs to, in file order.

    The topics with the most set-backs tell when each stretch was. A topic too sparse to show
    them is sorted into the stretches by time.

    Args:
        arrivals: by topic, in file order.

    Returns:
        By topic, numbers from 0, shape (N,); -1 where the time fits several stretches or none.
    """
    backs = {name: set_backs(t_ns) for name, t_ns in arrivals.items()}
    most = max(map(len, backs.values()), default=0)
    if not most:
        return {name: np.zeros(len(t_ns), np.int64) for name, t_ns in arrivals.items()}
    numbers = {
        name: np.searchsorted(at, np.arange(len(arrivals[name])), side="right").astype(np.int64)
        for name, at in backs.items()
        if len(at) == most
    }
    spans = [
        (
            min(arrivals[name][of == k].min() for name, of in numbers.items()) - SPARSE_NS,
            max(arrivals[name][of == k].max() for name, of in numbers.items()) + SPARSE_NS,
        )
        for k in range(most + 1)
    ]
    for name, t_ns in arrivals.items():
        if name not in numbers:
            inside = np.array([(t_ns >= low) & (t_ns <= high) for low, high in spans])
            numbers[name] = np.where(inside.sum(axis=0) == 1, inside.argmax(axis=0), -1)
    return numbers


@dataclass(frozen=True)
class Burst:
    """Messages that came at once: when, how many, and after which pause (0 at the start)."""

    t_ns: int
    count: int
    pause_s: float


def bursts(arrival_ns: Times) -> list[Burst]:
    """Bursts at the start of a topic or after a pause: messages that had waited somewhere.

    At least 6 messages, each within a tenth of the usual interval of the one before.

    Args:
        arrival_ns: ascending.
    """
    step = np.diff(arrival_ns)
    if len(step) < 4 * BURST:
        return []
    usual = np.median(step)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], step < usual / 10, [0]])))
    found = []
    for begin, end in edges.reshape(-1, 2).tolist():
        pause_s = float(step[begin - 1]) / SECOND_NS if begin else 0.0
        is_pause = begin > 0 and pause_s > max(0.5, 10 * usual / SECOND_NS)
        if end - begin >= BURST and (begin == 0 or is_pause):
            found.append(Burst(int(arrival_ns[begin]), end - begin + 1, pause_s))
    return found


def clock_resets(arrival_ns: Times, clock_ns: Times) -> Times:
    """When /clock went backwards: receive times of its first messages after each, ascending."""
    order = np.argsort(arrival_ns, kind="stable")
    back = np.flatnonzero(np.diff(clock_ns[order]) < -CLOCK_RESET_NS) + 1
    return arrival_ns[order][back]
