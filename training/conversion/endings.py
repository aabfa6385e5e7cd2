"""What drops a step and what ends an episode: rules over the grid, each of one idea."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.sampler import SECOND_NS, Messages, Resampled, Times, max_age_ns

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def gaps(contract: Contract, topics: Mapping[str, Messages], t_ns: Times) -> Flags:
    """Steps during which the trigger topic paused for longer than its max age, shape (T-1,)."""
    if contract.tick.trigger is None:
        return np.zeros(len(t_ns) - 1, bool)
    arrival = topics[contract.tick.trigger].arrival_ns
    pauses = np.concatenate(
        [[0], np.cumsum(np.diff(arrival) > max_age_ns(contract, contract.tick.trigger))]
    )
    at = pauses[np.searchsorted(arrival, t_ns, side="right") - 1]
    changed: Flags = at[1:] != at[:-1]
    return changed


def resets(contract: Contract, columns: Mapping[str, Array]) -> Flags:
    """Steps in which the field that tells of resets changes, shape (T-1,)."""
    size = len(next(iter(columns.values())))
    changed = np.zeros(size, bool)
    if contract.episode.reset is not None:
        for component in contract.components(contract.episode.reset):
            changed |= columns[component] != columns[f"next_{component}"]
    return changed


def clock_resets(contract: Contract, grid: Resampled, resets_ns: Times) -> Flags:
    """Steps in which /clock went back, or that still see a state from before, shape (T-1,)."""
    if not len(resets_ns):
        return np.zeros_like(grid.valid[1:])
    before = np.searchsorted(resets_ns, grid.t_ns, side="right")
    since_s = (grid.t_ns - resets_ns[before - 1]) / SECOND_NS
    outdated = np.zeros(len(grid.t_ns), bool)
    for alias in contract.inputs(signals=False):
        if alias in grid.ages_s:
            outdated |= (before > 0) & (grid.ages_s[alias] > since_s)
    crossed: Flags = (before[1:] != before[:-1]) | outdated[:-1] | outdated[1:]
    return crossed


def jumps(contract: Contract, columns: Mapping[str, Array]) -> Flags:
    """Steps in which a component changes by more than its declared limit, shape (T-1,)."""
    size = len(next(iter(columns.values())))
    leapt = np.zeros(size, bool)
    for name, limit in contract.episode.jump.items():
        for component in contract.components(name):
            leapt |= np.abs(columns[f"next_{component}"] - columns[component]) > limit
    return leapt


def last_of_episode(keep: Flags, ends: Flags, max_steps: int | None) -> Flags:
    """Kept steps that are the last of their episode: terminal, cut, or before a hole."""
    last = keep & (ends | ~np.concatenate([keep[1:], [False]]))
    if max_steps is not None:
        starts = keep & np.concatenate([[True], last[:-1] | ~keep[:-1]])
        steps = np.arange(len(keep))
        length = steps - np.maximum.accumulate(np.where(starts, steps, 0)) + 1
        last |= keep & (length % max_steps == 0)
    return last
