"""How a topic's messages lie in time: by the recorder's clock, and by their own stamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.sampler import SECOND_NS, Times
from training.conversion.clocks import WALL_NS, header_clock

GAP = 5.0
"""A gap is an interval this many times longer than the median."""
BURST = 0.2
"""In a burst messages follow each other faster than this part of the median interval."""
START_S = 5.0


@dataclass(frozen=True)
class Arrivals:
    """Receive times of one topic.

    Attributes:
        first_s, last_s: after the start of the log.
        rate_hz: one over the median interval; 0 where there is none.
        mean_hz: messages by the time between the first and the last.
        median_s, p95_s: of the interval between messages.
        gap_s, gap_at_s: the longest interval, and when it began, after the start of the log.
        gaps: intervals longer than `GAP` medians.
        duplicates: messages received at the very time of another.
        out_of_order: messages that lie in the file before an earlier one.
        start_burst: messages of the first 5 s that came in a burst, if later ones do not.
    """

    first_s: float
    last_s: float
    rate_hz: float
    mean_hz: float
    median_s: float
    p95_s: float
    gap_s: float
    gap_at_s: float
    gaps: int
    duplicates: int
    out_of_order: int
    start_burst: int

    @property
    def jitter_s(self) -> float:
        """How much longer than the median the 95th percentile of the intervals is."""
        return self.p95_s - self.median_s

    @property
    def is_steady(self) -> bool:
        """Whether the topic keeps a rate, so that a gap in it is news."""
        return self.median_s > 0 and self.p95_s < 3 * self.median_s


@dataclass(frozen=True)
class Stamps:
    """Header stamps of one topic, beside its receive times.

    Attributes:
        behind_s: receive time less stamp, the median of those that are not zero.
        drift_s_per_min: by how much that grows.
        zero: stamps that are zero.
        grain_s: 1.0 or 0.001 where all stamps are whole seconds or milliseconds, else 0.
        duplicates: stamps equal to the one before.
        backward: stamps before the one before, in order of arrival.
        is_sim: whether the stamps count from about zero, as simulated time does.
    """

    behind_s: float
    drift_s_per_min: float
    zero: int
    grain_s: float
    duplicates: int
    backward: int
    is_sim: bool


def arrivals(times: Times, start_ns: int) -> Arrivals:
    """Facts of receive times, shape (N,), in file order."""
    if not len(times):
        return Arrivals(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    out_of_order = int((np.diff(times) < 0).sum())
    times = np.sort(times)
    first_s, last_s = float(times[0] - start_ns) / 1e9, float(times[-1] - start_ns) / 1e9
    steps = np.diff(times) / SECOND_NS
    if not len(steps):
        return Arrivals(first_s, last_s, 0, 0, 0, 0, 0, 0, 0, 0, out_of_order, 0)
    median, p95 = np.quantile(steps, [0.5, 0.95])
    longest = int(steps.argmax())
    early = (times[1:] - times[0]) < START_S * SECOND_NS
    return Arrivals(
        first_s=first_s,
        last_s=last_s,
        rate_hz=float(1 / median) if median > 0 else 0.0,
        mean_hz=len(steps) / (last_s - first_s) if last_s > first_s else 0.0,
        median_s=float(median),
        p95_s=float(p95),
        gap_s=float(steps[longest]),
        gap_at_s=float(times[longest] - start_ns) / SECOND_NS,
        gaps=int((steps > GAP * median).sum()),
        duplicates=int((steps == 0).sum()),
        out_of_order=out_of_order,
        start_burst=_start_burst(steps < BURST * median, early),
    )


def _start_burst(quick: NDArray[np.bool_], early: NDArray[np.bool_]) -> int:
    """Quick intervals among the early ones, unless the topic comes in bursts all along."""
    started = int((quick & early).sum())
    later = float(quick[~early].mean()) if not early.all() else 0.0
    return started if started > 3 * later * int(early.sum()) else 0


def stamp_facts(times: Times, stamps: Times) -> Stamps | None:
    """Facts of stamps, shape (N,), with their receive times; None without any."""
    if not len(stamps):
        return None
    order = np.argsort(times, kind="stable")
    given = order[stamps[order] != 0]
    zero = len(stamps) - len(given)
    if not len(given):
        return Stamps(0, 0, zero, 0, 0, 0, False)
    stamps, times = stamps[given], times[given]
    clock = header_clock(times, stamps)
    steps = np.diff(stamps)
    return Stamps(
        behind_s=clock.offset_s,
        drift_s_per_min=clock.drift * 60,
        zero=zero,
        grain_s=_grain(stamps),
        duplicates=int((steps == 0).sum()),
        backward=int((steps < 0).sum()),
        is_sim=bool(np.median(stamps) < WALL_NS),
    )


def _grain(stamps: Times) -> float:
    if len(stamps) < 5:
        return 0.0
    for grain_ns in (SECOND_NS, SECOND_NS // 1000):
        if not (stamps % grain_ns).any():
            return grain_ns / SECOND_NS
    return 0.0
