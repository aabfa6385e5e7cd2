"""Which episodes a run is judged on, and its policy's actions in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from iql_ros.contract import Contract, first_difference
from iql_ros.errors import DatasetError
from training.datasets.dataset import Dataset, load_dataset
from training.datasets.scaling import to_unit
from training.evaluation.fqe import Floats, Transitions
from training.learning.checkpoint import RunError
from training.learning.preparing import split_run
from training.learning.run import Run

CHUNK = 16_384
"""Observations that pass through the policy at once."""


@dataclass(frozen=True)
class Judged:
    """A run and the episodes that judge it.

    Attributes:
        run: whose policy is judged.
        seen: the episodes it was trained on.
        reference: those of the run's own dataset that it held out, or `seen` if it held out none.
        episodes: those it is judged on.
        all_episodes: what value functions are fitted on.
        basis: in words, which episodes these are.
        is_unseen: whether the policy has never met them.
    """

    run: Run
    seen: Dataset
    reference: Dataset
    episodes: Dataset
    all_episodes: Dataset
    basis: str
    is_unseen: bool


def judged_by(run: Run, dataset: Path | None = None) -> Judged:
    """The run with its held-out episodes, or with all episodes of another dataset.

    Args:
        run: to judge.
        dataset: the run's own, if it no longer lies where it was; or another, of the same
            contract, such as logs recorded since.

    Raises:
        DatasetError: a dataset is missing, or of another contract; names the first difference.
    """
    given = None if dataset is None else load_dataset(dataset)
    is_own = given is None or given.digest == run.dataset_digest
    own = given if given is not None and is_own else _own_dataset(run)
    seen, held_out = split_run(own, run.config)
    reference = seen if held_out is None else held_out
    if given is not None and not is_own:
        difference = Interface.of_run(run).first_difference(Interface.of_data(given))
        if difference is not None:
            raise DatasetError(
                f"run {run.path} cannot be judged on {dataset}, which is of another contract: "
                f"{difference} (run against dataset)"
            )
        basis = f"all {len(given.episodes[0])} of {dataset}"
        return Judged(run, seen, reference, given, given, basis, True)
    if held_out is None:
        basis = f"all {len(own.episodes[0])}, which the run was trained on: it held out none"
        return Judged(run, seen, seen, own, own, basis, False)
    basis = f"the {len(held_out.episodes[0])} that the run held out"
    return Judged(run, seen, held_out, held_out, own, basis, True)


def policy_actions(run: Run, observations: Floats) -> Floats:
    """The deployed actions, (K, A) in [-1, 1], for SI observations (K, O).

    Raises:
        RunError: one is not finite.
    """
    with torch.no_grad():
        actions = [
            run.policy(torch.from_numpy(observations[i : i + CHUNK].copy())).numpy()
            for i in range(0, len(observations), CHUNK)
        ]
    unit = to_unit(np.concatenate(actions), run.action_low, run.action_high)
    broken = int((~np.isfinite(unit)).any(axis=1).sum())
    if broken:
        raise RunError(
            f"run {run.path}: the policy's action is not finite for {broken} of "
            f"{len(observations)} recorded observations: its weights are damaged; train anew"
        )
    return unit


def state_actions(run: Run, observations: Floats, actions: Floats) -> Floats:
    """Rows (s, a) of SI observations (K, O) and unit actions (K, A), (K, O + A)."""
    return np.hstack([run.normaliser(observations), actions]).astype(np.float32)


def recorded_actions(run: Run, data: Dataset) -> Floats:
    """The data's own actions, (N, A) in [-1, 1]."""
    return to_unit(data.actions, run.action_low, run.action_high)


def policy_transitions(run: Run, data: Dataset) -> Transitions:
    """The data, with the policy's action at s'."""
    following = policy_actions(run, data.next_observations)
    return _transitions(run, data, following, np.ones(len(data), bool))


def recorded_transitions(run: Run, data: Dataset) -> Transitions:
    """The data, with the recorded action at s'; without steps after which none was recorded."""
    actions = recorded_actions(run, data)
    following = np.roll(actions, -1, axis=0)
    return _transitions(run, data, following, ~data.timeouts | data.terminals)


@dataclass(frozen=True)
class Interface:
    """What must agree where a policy meets data, or two policies each other.

    Attributes:
        contract: None for plain D4RL data.
        observations, actions: how many components.
        low, high: SI limits of the actions, (A,).
    """

    contract: Contract | None
    observations: int
    actions: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of_run(cls, run: Run) -> Interface:
        """What a run was trained for."""
        low, high = run.action_low.tolist(), run.action_high.tolist()
        return cls(run.contract, len(run.normaliser.mean), len(low), tuple(low), tuple(high))

    @classmethod
    def of_data(cls, data: Dataset) -> Interface:
        """What a dataset holds."""
        low, high = data.action_low.tolist(), data.action_high.tolist()
        return cls(data.contract, data.observations.shape[1], len(low), tuple(low), tuple(high))

    def first_difference(self, other: Interface) -> str | None:
        """Names the first difference with both values, or None."""
        if self.contract is not None and other.contract is not None:
            return first_difference(self.contract, other.contract)
        for name in ("contract", "observations", "actions", "low", "high"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name}: {_brief(ours)} against {_brief(theirs)}"
        return None


def _transitions(
    run: Run, data: Dataset, following: Floats, kept: NDArray[np.bool_]
) -> Transitions:
    starts, ends = data.episodes
    columns = Transitions(
        state_actions(run, data.observations, recorded_actions(run, data)),
        state_actions(run, data.next_observations, following),
        data.rewards,
        1.0 - data.terminals.astype(np.float32),
        np.repeat(np.arange(len(starts)), ends - starts),
    )
    return replace(columns, **{name: column[kept] for name, column in vars(columns).items()})


def _own_dataset(run: Run) -> Dataset:
    if not run.dataset_path.exists():
        raise DatasetError(
            f"dataset {run.dataset_path} of run {run.path} does not exist: it tells what the "
            f"policy has seen; put it back there, or give its new place after the run"
        )
    dataset = load_dataset(run.dataset_path)
    if dataset.digest != run.dataset_digest:
        raise DatasetError(
            f"{run.dataset_path} has digest {dataset.digest[:16]}…, run {run.path} was trained on "
            f"{run.dataset_digest[:16]}…: put that dataset back, or train anew"
        )
    return dataset


def _brief(value: object) -> str:
    return repr(value.robot) if isinstance(value, Contract) else str(value)
