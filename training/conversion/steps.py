"""From the topics of one log to steps and episodes: the grid, action and ending rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from iql_ros.finite import fits_float32
from iql_ros.sampler import (
    SECOND_NS,
    Messages,
    Times,
    hold,
    resample,
    ticks,
)
from training.conversion.checks import Grid, check_fields, check_topics
from training.conversion.choices import no_choice, note_choices
from training.conversion.endings import clock_resets, gaps, jumps, last_of_episode, resets
from training.conversion.rewards import rewards, step_columns, terminals
from training.conversion.topics import Recording
from training.logs.log import note

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Steps:
    """Transitions of one log, N rows in time order (of segments: in file order).

    Attributes:
        t_ns: when each step begins, shape (N,).
        observations, next_observations: shape (N, O).
        actions: shape (N, A).
        rewards: shape (N,).
        terminals, timeouts: how its episode ended with this step, shape (N,); never both.
        signals: by field name, shape (N, components), at the beginning of the step.
        facts: counts of what was kept, of what was dropped and why, and figures on each topic,
            `<what>_<alias>`.
    """

    t_ns: Times
    observations: Array
    next_observations: Array
    actions: Array
    rewards: Array
    terminals: Flags
    timeouts: Flags
    signals: Mapping[str, Array]
    facts: Mapping[str, int | float]


def make_steps(contract: Contract, plan: FieldPlan, recording: Recording) -> Steps:
    """Applies the contract to the messages of one log.

    No step crosses from one segment of the recording to the next. What the steps reveal about
    the log goes to the recording's findings.

    Args:
        contract: the rules.
        plan: of all observations and signals.
        recording: inputs and outputs, as `read_topics` returns them.

    Raises:
        ContractError: an expression, or a key of the episode, is at fault.
        LogError: no segment has messages of every topic.
    """
    inputs = contract.inputs(signals=True)
    parts: list[Steps] = []
    grids: list[Grid] = []
    for topics, resets_ns in zip(recording.segments, recording.resets_ns, strict=True):
        silent = [alias for alias in inputs if not len(topics[alias].rows)]
        if silent:
            topic = contract.topics[silent[0]].absolute
            note(recording.findings, f"a stretch of the log has no message of {topic}: left out")
            continue
        part, grid = _segment(contract, plan, topics, resets_ns)
        parts.append(part)
        grids.append(grid)
    if not parts:
        raise LogError(f"{recording.name}: no stretch of its time has messages of every topic")
    facts = {**_sum([part.facts for part in parts]), **recording.facts}
    facts |= check_topics(contract, grids, recording.findings)
    check_fields(contract, grids, recording.findings)
    note_choices(contract, grids, recording.findings)
    return _joined(contract, parts, facts)


def _segment(
    contract: Contract, plan: FieldPlan, topics: Mapping[str, Messages], resets_ns: Times
) -> tuple[Steps, Grid]:
    """The steps of one stretch of unbroken time."""
    inputs = contract.inputs(signals=True)
    t_ns = ticks(contract, {alias: topics[alias] for alias in inputs})
    held, commanded = commands(contract, topics, t_ns)
    grid = resample(plan, topics, t_ns, held)
    actions, has_action = held[1:], commanded[1:]
    columns = step_columns(contract, grid.fields, actions)
    observations = np.concatenate([grid.fields[f.name] for f in contract.observations], axis=1)
    fits = fits_float32(observations)

    observed = grid.valid[:-1] & grid.valid[1:]
    reasons = {
        "dropped_no_observation": ~observed,
        "dropped_no_command": ~has_action,
        "dropped_no_choice": no_choice(contract, actions) & has_action,
        "dropped_beyond_float32": ~(fits[:-1] & fits[1:] & fits_float32(actions)),
        "dropped_gap": gaps(contract, topics, t_ns),
        "dropped_reset": resets(contract, columns) | clock_resets(contract, grid, resets_ns),
        "dropped_jump": jumps(contract, columns),
    }
    usable = np.ones(len(actions), bool)
    dropped = {}
    for reason, spoiled in reasons.items():
        dropped[reason] = int((usable & spoiled).sum())
        usable &= ~spoiled
    ends = terminals(contract, columns) & usable
    absorbed = ends & np.concatenate([[False], ends[:-1]])
    keep = usable & ~absorbed
    ends &= keep
    reward = rewards(contract, columns)
    unrewarded = keep & ~fits_float32(reward[:, None])
    keep &= ~unrewarded
    last = last_of_episode(keep, ends, contract.episode.max_steps)

    facts = {
        "instants": len(t_ns),
        "steps": int(keep.sum()),
        "episodes": int(last.sum()),
        "terminal": int((ends & last).sum()),
        "timeout": int((last & ~ends).sum()),
        **dropped,
        "dropped_after_terminal": int(absorbed.sum()),
        "dropped_reward_not_finite": int(unrewarded.sum()),
        **{f"stale_{alias}": count for alias, count in grid.stale.items()},
        **{f"nonfinite_{name}": count for name, count in grid.nonfinite.items() if count},
    }
    steps = Steps(
        t_ns=t_ns[:-1][keep],
        observations=observations[:-1][keep],
        next_observations=observations[1:][keep],
        actions=actions[keep],
        rewards=reward[keep],
        terminals=ends[keep],
        timeouts=(last & ~ends)[keep],
        signals={field.name: grid.fields[field.name][:-1][keep] for field in contract.signals},
        facts=facts,
    )
    return steps, Grid(topics, grid, actions, keep)


def commands(
    contract: Contract, topics: Mapping[str, Messages], t_ns: Times
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
        values = held.rows[:, -len(own) :]  # behind what observations read of the same topic
        known = held.exists.copy()
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


def _sum(facts: Sequence[Mapping[str, int | float]]) -> dict[str, int | float]:
    names = dict.fromkeys(name for each in facts for name in each)
    return {name: sum(each.get(name, 0) for each in facts) for name in names}


def _joined(contract: Contract, parts: Sequence[Steps], facts: Mapping[str, int | float]) -> Steps:
    def column(name: str) -> NDArray:
        return np.concatenate([getattr(part, name) for part in parts])

    names = [field.name for field in contract.signals]
    return Steps(
        t_ns=column("t_ns"),
        observations=column("observations"),
        next_observations=column("next_observations"),
        actions=column("actions"),
        rewards=column("rewards"),
        terminals=column("terminals"),
        timeouts=column("timeouts"),
        signals={name: np.concatenate([p.signals[name] for p in parts]) for name in names},
        facts=facts,
    )
