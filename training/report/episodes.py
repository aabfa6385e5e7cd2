"""Where the episodes of a dataset lie, how long they are and why each of them ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.report.numbers import describe, rounded

ENDS = {
    "terminal": "the contract's terminal rule was met",
    "max_steps": "cut at the contract's max_steps",
    "log_end": "the last usable step of its log",
    "hole": "the step after it was dropped: a gap, a stale field, a reset, no command",
}
"""Why an episode ends. Only the first is an end of the task, the others are timeouts."""

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Episodes:
    """E episodes, each a run of rows.

    Attributes:
        first, stop: rows of an episode are first <= row < stop, shape (E,).
        source: index of its log, shape (E,).
        start_ns: time of its first step, shape (E,).
        duration_s: from its first step to the end of its last, shape (E,).
        returns: undiscounted sum of rewards, shape (E,).
        ends: index into `ENDS`, shape (E,).
        interval_s: from each step to the next in the same episode, shape (N - E,).
        inside: whether row i + 1 goes on in the episode of row i, shape (N - 1,).
    """

    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    source: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    duration_s: NDArray[np.float64]
    returns: NDArray[np.float64]
    ends: NDArray[np.int64]
    interval_s: NDArray[np.float64]
    inside: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, shape (E,)."""
        return self.stop - self.first


def find_episodes(
    columns: Mapping[str, NDArray[Any]], infos: Mapping[str, NDArray[Any]], max_steps: int | None
) -> Episodes:
    """The episodes of a dataset of at least one row, by `infos/episode`."""
    number, source, t_ns = infos["episode"], infos["source"].astype(np.int64), infos["t_ns"]
    inside = number[1:] == number[:-1]
    first = np.concatenate([[0], np.flatnonzero(~inside) + 1])
    stop = np.concatenate([first[1:], [len(number)]])
    last = stop - 1
    interval_s = np.diff(t_ns)[inside] / SECOND_NS
    step_s = float(np.median(interval_s)) if len(interval_s) else 0.0
    ends_log = np.concatenate([source[last][1:] != source[last][:-1], [True]])
    full = (stop - first) == max_steps if max_steps is not None else np.zeros(len(first), bool)
    return Episodes(
        first=first,
        stop=stop,
        source=source[first],
        start_ns=t_ns[first],
        duration_s=(t_ns[last] - t_ns[first]) / SECOND_NS + step_s,
        returns=np.add.reduceat(columns["rewards"].astype(np.float64), first),
        ends=np.select([columns["terminals"][last], full, ends_log], [0, 1, 2], 3),
        interval_s=interval_s,
        inside=inside,
    )


def episode_facts(episodes: Episodes) -> dict[str, Any]:
    """Endings counted, lengths and returns described, and the episodes column by column."""
    names = list(ENDS)
    return {
        "ends": {name: int((episodes.ends == i).sum()) for i, name in enumerate(names)},
        "length": describe(episodes.lengths.astype(np.float64)),
        "return": describe(episodes.returns),
        "duration_s": describe(episodes.duration_s),
        "each": {
            "source": episodes.source.tolist(),
            "start_ns": episodes.start_ns.tolist(),
            "duration_s": [rounded(value) for value in episodes.duration_s],
            "length": episodes.lengths.tolist(),
            "return": [rounded(value) for value in episodes.returns],
            "end": [names[i] for i in episodes.ends],
        },
    }


def timing_facts(episodes: Episodes) -> dict[str, Any]:
    """Intervals between the steps of an episode; `uneven` differ from the median by over half."""
    if not len(episodes.interval_s):
        return {"rate_hz": None, "uneven": 0, "interval_s": None}
    step_s = float(np.median(episodes.interval_s))
    return {
        "rate_hz": rounded(1 / step_s) if step_s > 0 else None,
        "uneven": int((np.abs(episodes.interval_s - step_s) > 0.5 * step_s).sum()),
        "interval_s": describe(episodes.interval_s),
    }
