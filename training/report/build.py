"""From the arrays of a dataset to the facts about it: pure, and the same for the same dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros import __version__
from iql_ros.contract import Contract
from iql_ros.contracts.schema import Action, Field
from training.report.advice import warnings_of
from training.report.duplicates import duplicate_facts
from training.report.episodes import Episodes, episode_facts, find_episodes, timing_facts
from training.report.movement import frozen, jumps
from training.report.numbers import describe, plain, rounded

Columns = Mapping[str, NDArray[Any]]

FORMAT = 1
AT_LIMIT = 1e-6
"""Share of its limits' width within which a value counts as lying at the limit."""
ROTATIONS = ("orientation", "rotation", "quaternion")
"""Names under which messages hold quaternions."""
PAIR_SLACK = 1e-5
"""Rounding of whoever wrote the dataset."""


def build_report(
    columns: Columns,
    infos: Columns,
    contract: Contract,
    logs: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]] = (),
    *,
    dataset: str = "",
) -> dict[str, Any]:
    """Everything that can be said about a dataset, in JSON's types and in a stable order.

    Args:
        columns: observations, next_observations, actions, rewards, terminals, timeouts of N >= 1
            rows.
        infos: t_ns, episode, source, and signals/<name>.
        contract: what a step is.
        logs: for each source its name, sha256, start_ns, steps, `facts` (a dict) and `findings`
            (a list); `begin_ns` and `end_ns`, if given, are the extent of the whole log.
        failed: path and reason of each log that gave nothing.
        dataset: name of the dataset's file.
    """
    episodes = find_episodes(columns, infos, contract.episode.max_steps)
    idle = (columns["actions"] == contract.action_safe.astype(np.float32)).all(axis=1)
    rewards = columns["rewards"]
    report: dict[str, Any] = {
        "format": FORMAT,
        "dataset": dataset,
        "contract": contract.robot,
        "contract_digest": contract.digest(),
        "created_by": f"iql_ros {__version__}",
        "steps": len(rewards),
        "episodes": len(episodes.first),
        "hours": rounded(float(episodes.duration_s.sum()) / 3600),
        "warnings": [],
        "terminal_rule": contract.episode.terminal,
        "timing": timing_facts(episodes),
        "episode_facts": episode_facts(episodes),
        "reward": describe(rewards),
        "idle_steps": int(idle.sum()),
        "broken_pairs": _broken_pairs(columns, episodes),
        "components": _components(columns, infos, contract, episodes, ~idle),
        "duplicates": duplicate_facts(columns["observations"], columns["actions"], episodes),
        "dropped": _dropped(logs),
        "logs": [_log(log, i, episodes) for i, log in enumerate(logs)],
        "failed": list(failed),
    }
    report = plain(report)
    report["warnings"] = list(warnings_of(report))
    return report


def _components(
    columns: Columns,
    infos: Columns,
    contract: Contract,
    episodes: Episodes,
    commanded: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Every component of actions, observations and signals, described."""
    now, after = columns["observations"], columns["next_observations"]
    found = [
        {**_component(contract, action, j, values, "action"), "frozen": None, "jumps": None}
        for action in contract.actions
        for j, values in enumerate(_own(columns["actions"], contract, action.name).T)
    ]
    stuck = iter(frozen(now, episodes.inside, commanded))
    for field in contract.observations:
        pairs = zip(
            _own(now, contract, field.name).T, _own(after, contract, field.name).T, strict=True
        )
        is_rotation = field.path is not None and any(word in field.path for word in ROTATIONS)
        for j, (values, next_values) in enumerate(pairs):
            facts = _component(contract, field, j, values, "observation")
            q = facts.get("quantiles", {"1%": 0.0, "99%": 0.0})
            usual = q["99%"] - q["1%"]
            facts["frozen"] = next(stuck)
            facts["jumps"] = jumps(values, next_values, usual, field.unit, is_rotation)
            found.append(facts)
    for field in contract.signals:
        if f"signals/{field.name}" in infos:
            for j, values in enumerate(infos[f"signals/{field.name}"].T):
                facts = _component(contract, field, j, values, "signal")
                found.append({**facts, "frozen": None, "jumps": None})
    return found


def _own(matrix: NDArray[Any], contract: Contract, name: str) -> NDArray[Any]:
    where = contract.index(name)
    return matrix[:, where : where + 1] if isinstance(where, int) else matrix[:, where]


def _component(
    contract: Contract, item: Field | Action, j: int, values: NDArray[Any], role: str
) -> dict[str, Any]:
    """Component j of a field, with what lies at and beyond its limits."""
    values = np.ascontiguousarray(values)  # a column of a large matrix is slow to read again
    limits = None
    if item.limits is not None:
        limits = item.limits[j if len(item.limits) > 1 else 0]
    facts: dict[str, Any] = {
        "name": contract.components(item.name)[j],
        "field": item.name,
        "role": role,
        "read": isinstance(item, Field) and item.topic is not None,
        "unit": item.unit,
        "limits": limits,
        **describe(values),
    }
    if "min" in facts:
        finite = values[np.isfinite(values)]
        facts["visits_min"] = _visits(finite == finite.min())
        facts["visits_max"] = _visits(finite == finite.max())
    if limits is not None:
        low, high = limits
        slack = AT_LIMIT * (high - low)
        facts["outside"] = int(((values < low - slack) | (values > high + slack)).sum())
        facts["at_low"] = int((np.abs(values - low) <= slack).sum())
        facts["at_high"] = int((np.abs(values - high) <= slack).sum())
    return facts


def _visits(there: NDArray[np.bool_]) -> int:
    """How many separate stays `there` has."""
    return int(there[0]) + int(np.count_nonzero(there[1:] & ~there[:-1]))


def _broken_pairs(columns: Columns, episodes: Episodes) -> int:
    """Steps whose next observation is not the observation of the following step."""
    differ = np.zeros(len(episodes.inside), bool)
    for after, now in zip(columns["next_observations"].T, columns["observations"].T, strict=True):
        expected, found = now[1:], after[:-1]
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        differ |= ~(same | (np.abs(found - expected) <= PAIR_SLACK * (1 + np.abs(expected))))
    return int((differ & episodes.inside).sum())


def _dropped(logs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Steps that did not become part of the dataset, by reason, over all logs."""
    total: dict[str, int] = {}
    for log in logs:
        for name, count in log.get("facts", {}).items():
            if name.startswith("dropped_") and count:
                reason = name.removeprefix("dropped_")
                total[reason] = total.get(reason, 0) + int(count)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _log(log: Mapping[str, Any], i: int, episodes: Episodes) -> dict[str, Any]:
    own = episodes.source == i
    seconds = float(episodes.duration_s[own].sum())
    return {
        **log,
        "episodes": int(own.sum()),
        "used_s": rounded(seconds),
        "mean_return": rounded(float(episodes.returns[own].mean())) if own.any() else None,
    }
