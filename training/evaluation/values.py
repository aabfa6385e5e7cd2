"""Estimated values: of a run's policy, of the behaviour that was recorded, and of the networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.datasets.dataset import Dataset
from training.evaluation.fqe import FqeSettings, Q, fit_q
from training.evaluation.judged import (
    Judged,
    policy_actions,
    recorded_actions,
    recorded_transitions,
    state_actions,
)
from training.learning.batch import pack, unpack
from training.learning.cql import Cql
from training.learning.discrete import unit_choices
from training.learning.iql import Iql
from training.learning.run import Run

Doubles = NDArray[np.float64]


def policy_values(q: Q, run: Run, starts_of: Dataset) -> Doubles:
    """Q of the deployed policy at the first step of each episode, by member, (M, E)."""
    first = starts_of.observations[starts_of.episodes[0]]
    return q(state_actions(run, first, policy_actions(run, first)))


def recorded_values(
    run: Run, fitted_on: Dataset, starts_of: Dataset, discount: float, settings: FqeSettings
) -> Doubles:
    """FQE of whoever was recorded, at the first step of each episode, by member, (M, E).

    Args:
        run: gives the normalisation, no more.
        fitted_on: episodes that Q is fitted on.
        starts_of: episodes whose first steps are valued.
        discount: gamma.
        settings: of the fit.
    """
    q = fit_q(recorded_transitions(run, fitted_on), discount, settings)
    rows = starts_of.episodes[0]
    actions = recorded_actions(run, starts_of)[rows]
    return q(state_actions(run, starts_of.observations[rows], actions))


@dataclass(frozen=True)
class NetworkValues:
    """What a run's own networks predict for N steps, in the training's units of reward.

    Attributes:
        q: the smaller target critic's, of the recorded action, (N,).
        v: of the state, (N,); None where the algorithm has none.
        rewards: as the training scales and shifts them, (N,).
        tails: V, or else Q of the last step, of where each episode was cut off, and 0 after
            a terminal, (E,).
    """

    q: Doubles
    v: Doubles | None
    rewards: Doubles
    tails: Doubles


@torch.no_grad()
def network_values(judged: Judged) -> NetworkValues | None:
    """The predictions in the episodes that judge; None if the run learnt no values."""
    run, data = judged.run, judged.episodes
    learner = _readable(run)
    if learner is None:
        return None
    critic, value = learner.target_critic, learner.value if isinstance(learner, Iql) else None
    batch = unpack(pack(data, run.normaliser, run.config), run.learner.action_size)
    q = critic(batch.state_actions).amin(dim=0).double().numpy()
    v = None if value is None else value(batch.observations).double().numpy()
    last = data.episodes[1] - 1
    beyond = q[last] if value is None else value(batch.next_observations).double().numpy()[last]
    return NetworkValues(q, v, batch.rewards.double().numpy(), beyond * ~data.terminals[last])


def _readable(run: Run) -> Iql | Cql | None:
    """The run's networks as one can call them, however it updates them; None if it has no critics.

    The fast learners keep the same weights under the same names, but stacked.
    """
    if isinstance(run.learner, Cql):
        return run.learner
    if run.config.algorithm != "iql":
        return None
    sizes = len(run.normaliser.mean), len(run.action_low)
    learner = Iql(run.config, *sizes, torch.Generator(), unit_choices(run.contract))
    learner.load_state_dict(run.learner.state_dict())
    return learner
