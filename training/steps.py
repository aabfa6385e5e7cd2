"""From the topics of one log to steps and episodes: the grid, action and ending rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Messages, Resampled, hold, max_age_ns, resample, ticks
from training.rewards import rewards, step_columns, terminals

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Steps:
    """Transitions of one log, N rows in time order.

    Attributes:
        t_ns: when each step begins, shape (N,).
        observations, next_observations: shape (N, O).
        actions: shape (N, A).
        rewards: shape (N,).
        terminals, timeouts: how its episode ended with this step, shape (N,); never both.
        signals: by field name, shape (N, components), at the beginning of the step.
        facts: counts of what was kept and of what was dropped and why.
    """

    t_ns: NDArray[np.int64]
    observations: Array
    next_observations: Array
    actions: Array
    rewards: Array
    terminals: Flags
    timeouts: Flags
    signals: Mapping[str, Array]
    facts: Mapping[str, int | float]


def make_steps(contract: Contract, plan: FieldPlan, topics: Mapping[str, Messages]) -> Steps:
    """Applies the contract to the messages of one log.

    Args:
        contract: the rules.
        plan: of all observations and signals.
        topics: by alias, as `sampler.visible` returns them, inputs and outputs.
    """
    inputs = contract.inputs(signals=True)
    t_ns = ticks(contract, {alias: topics[alias] for alias in inputs})
    held, commanded = commands(contract, topics, t_ns)
    grid = resample(plan, topics, t_ns, held)
    actions, has_action = held[1:], commanded[1:]
    columns = step_columns(contract, grid.fields, actions)

    observed = grid.valid[:-1] & grid.valid[1:]
    gap = _gaps(contract, topics, t_ns)
    reset = _resets(contract, columns)
    usable = observed & has_action & ~gap & ~reset
    ends = terminals(contract, columns) & usable
    absorbed = ends & np.concatenate([[False], ends[:-1]])
    keep = usable & ~absorbed
    ends &= keep
    reward = rewards(contract, columns)
    unrewarded = keep & ~np.isfinite(reward)
    keep &= ~unrewarded
    last = _last_of_episode(keep, ends, contract.episode.max_steps)

    observations = np.concatenate([grid.fields[f.name] for f in contract.observations], axis=1)
    facts = {
        "instants": len(t_ns),
        "steps": int(keep.sum()),
        "episodes": int(last.sum()),
        "terminal": int((ends & last).sum()),
        "timeout": int((last & ~ends).sum()),
        "dropped_no_observation": int((~observed).sum()),
        "dropped_no_command": int((observed & ~has_action).sum()),
        "dropped_gap": int((observed & has_action & gap).sum()),
        "dropped_reset": int((observed & has_action & ~gap & reset).sum()),
        "dropped_after_terminal": int(absorbed.sum()),
        "dropped_reward_not_finite": int(unrewarded.sum()),
        **{f"stale_{alias}": count for alias, count in grid.stale.items()},
        **{f"nonfinite_{name}": count for name, count in grid.nonfinite.items() if count},
    }
    return Steps(
        t_ns=t_ns[:-1][keep],
        observations=observations[:-1][keep],
        next_observations=observations[1:][keep],
        actions=actions[keep],
        rewards=reward[keep],
        terminals=ends[keep],
        timeouts=(last & ~ends)[keep],
        signals=_signals(contract, grid, keep),
        facts=facts,
    )


def commands(
    contract: Contract, topics: Mapping[str, Messages], t_ns: NDArray[np.int64]
) -> tuple[Array, Flags]:
    """What the command topics hold just before each instant.

    Returns:
        Actions (T, A), NaN where there is none, and where there is one, (T,).
    """
    actions = np.full((len(t_ns), contract.action_size), np.nan)
    exists = np.ones(len(t_ns), bool)
    for alias in contract.outputs:
        topic = contract.topics[alias]
        own = [i for a in contract.actions if a.topic == alias for i in _columns(contract, a.name)]
        held = hold(topics[alias], t_ns, before=True)
        values, known = held.rows, held.exists.copy()
        if topic.command_timeout_s is not None and topic.on_silence != "hold":
            silent = held.age_ns > round(topic.command_timeout_s * SECOND_NS)
            values = np.where(silent[:, None], 0.0, values)
            if topic.on_silence == "break":
                known &= ~silent
        known &= np.isfinite(values).all(axis=1)
        actions[:, own] = values
        exists &= known
    actions[~exists] = np.nan
    return actions, exists


def _columns(contract: Contract, name: str) -> list[int]:
    where = contract.index(name)
    return [where] if isinstance(where, int) else list(range(where.start, where.stop))


def _gaps(contract: Contract, topics: Mapping[str, Messages], t_ns: NDArray[np.int64]) -> Flags:
    """Steps during which the trigger topic paused for longer than its max age, shape (T-1,)."""
    if contract.tick.trigger is None:
        return np.zeros(len(t_ns) - 1, bool)
    arrival = topics[contract.tick.trigger].arrival_ns
    pauses = np.concatenate(
        [[0], np.cumsum(np.diff(arrival) > max_age_ns(contract, contract.tick.trigger))]
    )
    at = pauses[np.searchsorted(arrival, t_ns, side="right") - 1]
    return at[1:] != at[:-1]


def _resets(contract: Contract, columns: Mapping[str, Array]) -> Flags:
    size = len(next(iter(columns.values())))
    changed = np.zeros(size, bool)
    if contract.episode.reset is not None:
        for component in contract.components(contract.episode.reset):
            changed |= columns[component] != columns[f"next_{component}"]
    return changed


def _last_of_episode(keep: Flags, ends: Flags, max_steps: int | None) -> Flags:
    """Kept steps that are the last of their episode: terminal, cut, or before a hole."""
    last = keep & (ends | ~np.concatenate([keep[1:], [False]]))
    if max_steps is not None:
        starts = keep & np.concatenate([[True], last[:-1] | ~keep[:-1]])
        steps = np.arange(len(keep))
        length = steps - np.maximum.accumulate(np.where(starts, steps, 0)) + 1
        last |= keep & (length % max_steps == 0)
    return last


def _signals(contract: Contract, grid: Resampled, keep: Flags) -> dict[str, Array]:
    return {field.name: grid.fields[field.name][:-1][keep] for field in contract.signals}
