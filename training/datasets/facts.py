"""What is in a dataset file, and how its values are spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import load_dataset
from training.datasets.ranges import action_range
from training.datasets.table import Table, read_table


def suspect_ends(table: Table) -> list[str]:
    """Terminals that look like a time limit, which would teach that the world ends there."""
    lengths = Counter(rows.stop - rows.start for rows in table.episodes)
    count, steps = len(table.episodes), max(lengths)
    # By chance the longest episodes are few; a limit makes theirs the commonest length.
    limited = lengths.pop(steps)
    if limited < 3 or steps == 1 or table.columns["timeouts"].any():
        return []
    if limited <= max(lengths.values(), default=0):
        return []
    which = f"each of the {count}" if limited == count else f"{limited} of the {count}"
    return [
        f"{which} episodes ends with a terminal after exactly {steps} steps: if that "
        f"is a time limit, at which the world goes on, import the file with --time-limit {steps}"
    ]


def facts(path: Path) -> dict[str, Any]:
    """What is in a dataset file, as plain JSON types."""
    table, trusted = read_table(path), load_dataset(path)
    lengths = [rows.stop - rows.start for rows in table.episodes]
    contract = table.contract
    return {
        "path": str(path),
        "steps": len(table),
        "episodes": len(lengths),
        "terminals": int(table.columns["terminals"].sum()),
        "timeouts": int(table.columns["timeouts"].sum()),
        "episode_steps": _spread(lengths),
        "observations": list(trusted.observation_names),
        "actions": _action_names(table),
        "infos": {n: [str(a.dtype), *a.shape] for n, a in sorted(table.infos.items())},
        "robot": None if contract is None else contract.robot,
        "contract_digest": None if contract is None else contract.digest(),
        "sources": [dict(source) for source in table.sources],
        "findings": list(dict.fromkeys([*trusted.findings, *table.findings, *suspect_ends(table)])),
    }


def statistics(path: Path) -> dict[str, Any]:
    """How the values of a dataset file are spread, as plain JSON types.

    `at_limit` is the share of actions on or beyond one of their limits.
    """
    table = read_table(path)
    names = {"observations": load_dataset(path).observation_names, "actions": _action_names(table)}
    low, high = (limit.astype(np.float32) for limit in action_range(table))
    actions = table.columns["actions"]
    at_limit = ((actions <= low) | (actions >= high)).mean(axis=0)
    rewards = table.columns["rewards"].astype(np.float64)
    spans = table.episodes
    return {
        **{
            part: {name: _spread(table.columns[part][:, i]) for i, name in enumerate(names[part])}
            for part in names
        },
        "at_limit": dict(zip(names["actions"], at_limit.tolist(), strict=True)),
        "rewards": _spread(rewards),
        "returns": _spread([rewards[span].sum() for span in spans]),
        "episode_steps": _spread([span.stop - span.start for span in spans]),
    }


def _spread(values: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    array = np.asarray(values, np.float64)
    low, q01, median, q99, high = np.quantile(array, [0.0, 0.01, 0.5, 0.99, 1.0]).tolist()
    return {
        "min": low,
        "q01": q01,
        "median": median,
        "mean": float(array.mean()),
        "std": float(array.std()),
        "q99": q99,
        "max": high,
    }


def _action_names(table: Table) -> list[str]:
    if table.contract is not None:
        return list(table.contract.action_names)
    return [f"actions[{i}]" for i in range(table.columns["actions"].shape[1])]
