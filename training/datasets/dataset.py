"""The dataset that training reads: one HDF5 file, checked once and then trusted.

The layout (docs/architecture.md) is a superset of D4RL's flat one. Plain D4RL files load
too; whatever they lack is filled by a stated rule, and every such remedy is a line of
`Dataset.findings`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.errors import DatasetError
from training.datasets.completion import complete
from training.datasets.file import COLUMNS, FORMAT, read_columns
from training.datasets.file import write_dataset as write_dataset
from training.datasets.mapped import parts, take_rows

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

FEWEST_STEPS = 1000
"""Of float32 there must be so many between the limits of an action."""


@dataclass(frozen=True)
class Dataset:
    """Transitions in time order. An episode ends at each row with a terminal or a timeout.

    Attributes:
        observations, next_observations: (N, O), SI units.
        actions: (N, A), SI units, within the limits.
        rewards: (N,).
        terminals, timeouts: (N,); the last row is always one of them.
        action_low, action_high: (A,) float64, what -1 and 1 of the policy stand for.
        contract: None for a plain D4RL file.
        findings: what was amiss in the file, and what was done about it.
    """

    observations: Floats
    actions: Floats
    rewards: Floats
    terminals: Flags
    timeouts: Flags
    next_observations: Floats
    action_low: NDArray[np.float64]
    action_high: NDArray[np.float64]
    contract: Contract | None = None
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*COLUMNS, "action_low", "action_high"):
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.rewards)

    @cached_property
    def episodes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row and one past the last row of every episode, (E,) each."""
        ends = np.flatnonzero(self.terminals | self.timeouts) + 1
        return np.concatenate([[0], ends[:-1]]), ends

    @cached_property
    def column_digests(self) -> dict[str, str]:
        """SHA-256 of every column, shape and type included, hexadecimal."""
        return {name: _array_digest(getattr(self, name)) for name in COLUMNS}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all columns and the contract, hexadecimal."""
        contract = "" if self.contract is None else self.contract.digest()
        return hashlib.sha256(
            "".join([*self.column_digests.values(), contract]).encode()
        ).hexdigest()

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The contract's component names, or their positions where there is no contract."""
        if self.contract is not None:
            return self.contract.observation_names
        return tuple(f"observations[{i}]" for i in range(self.observations.shape[1]))

    def take(self, episodes: NDArray[np.int64]) -> Dataset:
        """Returns the dataset of these episode numbers alone, in the order given."""
        starts, ends = self.episodes
        rows = np.concatenate([np.arange(starts[i], ends[i]) for i in episodes])
        taken: dict[str, Any] = {name: take_rows(getattr(self, name), rows) for name in COLUMNS}
        return replace(self, **taken)


def split_episodes(
    dataset: Dataset, fraction: float, rng: np.random.Generator
) -> tuple[Dataset, Dataset | None]:
    """Splits whole episodes at random into training and held-out data.

    Args:
        dataset: what to split.
        fraction: share of the episodes to hold out, rounded, at least one; 0 holds out none.
        rng: decides which.

    Returns:
        Training data, and held-out data or None.
    """
    if fraction == 0:
        return dataset, None
    count = len(dataset.episodes[0])
    held_out = max(1, round(fraction * count))
    if held_out >= count:
        raise DatasetError(
            f"dataset has {count} episode(s), held_out_fraction {fraction} would hold out "
            f"{held_out} and leave none to train on: add logs, or set held_out_fraction to 0 "
            f"and go without held-out losses"
        )
    order = rng.permutation(count)
    return dataset.take(np.sort(order[held_out:])), dataset.take(np.sort(order[:held_out]))


def load_dataset(path: Path) -> Dataset:
    """Reads, checks and completes a dataset.

    Raises:
        DatasetError: naming the column, the value, the rule and the fix.
    """
    columns, attributes = read_columns(path)
    contract = _contract(attributes, columns, path)
    for name in ("observations", "actions", "rewards", "next_observations"):
        if name in columns:
            _check_finite(columns[name], name, contract, path)
    findings: list[str] = []
    columns = complete(columns, findings)
    if not len(columns["rewards"]):
        raise DatasetError(f"{path} has no transition left: every episode is one step long")
    low, high = _action_range(columns["actions"], contract, findings)
    if contract is not None:
        _check_range(contract, path)
    if contract is not None and contract.choices is not None:
        columns["actions"] = _choices(columns["actions"], contract.choices, contract, path)
    else:
        columns["actions"] = _within(columns["actions"], low, high, contract, findings)
    constant = np.ptp(columns["rewards"]) == 0
    # Where episodes end for good, a constant reward still tells long ones from short ones.
    if constant and (columns["rewards"][0] == 0 or not columns["terminals"].any()):
        findings.append(
            f"every reward is {columns['rewards'][0]:g}: the advantages carry no preference, "
            f"so IQL can only imitate; check the reward rule"
        )
    return Dataset(
        **columns, action_low=low, action_high=high, contract=contract, findings=tuple(findings)
    )


def _contract(
    attributes: dict[str, object], columns: dict[str, NDArray], path: Path
) -> Contract | None:
    version = attributes.get("format", FORMAT)
    if version != FORMAT:
        raise DatasetError(
            f"{path} has format {version}, this version reads {FORMAT}: convert anew"
        )
    if "contract" not in attributes:
        return None
    contract = Contract.from_json(str(attributes["contract"]))
    recorded = attributes.get("contract_digest")
    if recorded != contract.digest():
        raise DatasetError(
            f"{path}: contract_digest {recorded} is not that of the contract embedded beside it, "
            f"{contract.digest()}: the file was altered; convert anew"
        )
    for name, names in (
        ("observations", contract.observation_names),
        ("actions", contract.action_names),
    ):
        if columns[name].shape[1] != len(names):
            raise DatasetError(
                f"{path}: '{name}' has {columns[name].shape[1]} columns, its contract "
                f"{contract.robot!r} declares {len(names)}: {', '.join(names)}"
            )
    return contract


def _check_finite(array: Floats, name: str, contract: Contract | None, path: Path) -> None:
    of_parts = [np.argwhere(~np.isfinite(part)) for _, part in parts(array)]
    if not any(map(len, of_parts)):
        return
    bad = np.argwhere(~np.isfinite(array))
    row, *column = bad[0]
    component = ""
    if column and contract is not None:
        names = contract.action_names if name == "actions" else contract.observation_names
        component = f" ({names[column[0]]})"
    raise DatasetError(
        f"{path}: '{name}'{[int(i) for i in bad[0]]}{component} is {array[tuple(bad[0])]}, "
        f"{len(bad)} value(s) of its kind, first in row {row}: every value must be finite; "
        f"drop those rows, or convert with on_nonfinite: break"
    )


def _action_range(
    actions: Floats, contract: Contract | None, findings: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if contract is not None:
        return contract.action_low.copy(), contract.action_high.copy()
    size = actions.shape[1]
    if np.abs(actions).max() <= 1.0:
        findings.append("no contract: action limits taken as [-1, 1]")
        return -np.ones(size), np.ones(size)
    low, high = actions.min(axis=0).astype(np.float64), actions.max(axis=0).astype(np.float64)
    still = low == high
    low, high = np.where(still, low - 1.0, low), np.where(still, high + 1.0, high)
    findings.append(
        f"no contract: action limits taken from the data, low {np.round(low, 4).tolist()}, "
        f"high {np.round(high, 4).tolist()}"
    )
    return low, high


def _check_range(contract: Contract, path: Path) -> None:
    """Raises DatasetError where a policy, whose actions are float32, cannot span the limits."""
    with np.errstate(over="ignore", invalid="ignore"):
        low = contract.action_low.astype(np.float32)
        high = contract.action_high.astype(np.float32)
        span = high - low
        is_coarse = np.spacing(np.maximum(np.abs(low), np.abs(high))) > span / FEWEST_STEPS
    bad = np.flatnonzero(~np.isfinite(span) | is_coarse)
    if len(bad):
        i = int(bad[0])
        raise DatasetError(
            f"{path}: action {contract.action_names[i]!r} has limits "
            f"[{contract.action_low[i]:.9g}, {contract.action_high[i]:.9g}], and float32, in which "
            f"a policy commands, {'is too coarse there' if is_coarse[i] else 'ends before them'}: "
            f"declare limits that the actuator has, and convert anew"
        )


def _within(
    actions: Floats,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    contract: Contract | None,
    findings: list[str],
) -> Floats:
    """Clips to the limits, in float32 so that a limit such as 0.1 does not exceed itself."""
    clipped = np.clip(actions, low.astype(np.float32), high.astype(np.float32))
    outside = clipped != actions
    for i in np.flatnonzero(outside.any(axis=0)):
        name = contract.action_names[i] if contract is not None else f"actions[{i}]"
        worst = actions[np.argmax(np.abs(actions[:, i] - clipped[:, i])), i]
        findings.append(
            f"action '{name}': {int(outside[:, i].sum())} of {len(actions)} values lie outside "
            f"[{low[i]:g}, {high[i]:g}], the farthest {worst:g}: clipped"
        )
    return clipped


def _choices(
    actions: Floats, choices: NDArray[np.float64], contract: Contract, path: Path
) -> Floats:
    """The choices that the actions mean, free of rounding."""
    numbers, is_choice = nearest_choice(actions, choices)
    bad = np.flatnonzero(~is_choice.all(axis=1))
    if len(bad):
        raise DatasetError(
            f"{path}: action {contract.action_names[0]!r} is {actions[bad[0], 0]} in row {bad[0]}, "
            f"{len(bad)} value(s) of its kind: the contract allows {choices.tolist()}; convert "
            f"anew with the choices that the robot really takes, or drop those rows"
        )
    return choices[numbers].astype(np.float32)


def _array_digest(array: NDArray[np.generic]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
