"""The doubly robust estimate of a run: its policy's density, the behaviour's, and a Q to lean on.

It needs pi(a|s), so it judges the Gaussian or softmax policy with its noise, while the robot
runs the likeliest action. A deterministic policy has no density: no recorded action is ever
exactly its own.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.evaluation.doubly_robust import Decisions, DoublyRobust, doubly_robust
from training.evaluation.fqe import Floats, Q
from training.evaluation.judged import Judged, recorded_actions, state_actions
from training.learning.batch import pack
from training.learning.config import TrainConfig
from training.learning.discrete import CategoricalActor, GreedyPolicy, unit_choices
from training.learning.learner import Learner, create_learner, draw_block, run_block
from training.learning.networks import LOG_STD_MAX, LOG_STD_MIN, Actor
from training.learning.run import Run

Doubles = NDArray[np.float64]

SAMPLES = 8
"""Actions that a mean of Q over the policy is taken from."""


Random: TypeAlias = Actor | CategoricalActor


def why_not(run: Run) -> str | None:
    """Why a run's policy has no density to weight with, or None if it has."""
    policy = _random_policy(run.learner)
    if policy is None:
        return f"no density is known of {type(run.learner.deployed()).__name__}"
    if isinstance(policy, Actor) and not policy.log_std.requires_grad:
        return "the actor is deterministic: it has no density"
    return None


def estimate(judged: Judged, q: Q, discount: float, behaviour_steps: int) -> DoublyRobust:
    """The doubly robust value of a random policy on the episodes that judge it.

    The behaviour's density is that of BC fitted to the training episodes, so where several
    people steered, the ratios are approximate; Q then has to be right.

    Args:
        judged: the run, `why_not` having nothing against it, and its episodes.
        q: a model of the policy's values, as from FQE.
        discount: gamma.
        behaviour_steps: updates of the behaviour's BC.
    """
    run, data = judged.run, judged.episodes
    policy = _random_policy(run.learner)
    behaviour = _random_policy(_behaviour(judged, behaviour_steps))
    assert policy is not None
    assert behaviour is not None
    actions = torch.from_numpy(recorded_actions(run, data))
    here, there = (
        torch.from_numpy(run.normaliser(observations))
        for observations in (data.observations, data.next_observations)
    )

    def mean_q(observations: Floats, states: Tensor) -> Doubles:
        rng = torch.Generator().manual_seed(0)
        draws = [_draw(policy, states, rng) for _ in range(SAMPLES)]
        return np.mean([q(state_actions(run, observations, a)).mean(axis=0) for a in draws], axis=0)

    starts, ends = data.episodes
    decisions = Decisions(
        log_ratios=_log_prob(policy, here, actions) - _log_prob(behaviour, here, actions),
        rewards=data.rewards.astype(np.float64),
        masks=1.0 - data.terminals.astype(np.float64),
        q=q(state_actions(run, data.observations, actions.numpy())).mean(axis=0),
        v=mean_q(data.observations, here),
        next_v=mean_q(data.next_observations, there),
        starts=starts,
        ends=ends,
    )
    return doubly_robust(decisions, discount)


def _random_policy(learner: Learner) -> Random | None:
    """What has a density: the deployed Gaussian, or the softmax whose likeliest choice acts."""
    deployed = learner.deployed()
    policy = deployed.actor if isinstance(deployed, GreedyPolicy) else deployed
    return policy if isinstance(policy, (Actor, CategoricalActor)) else None


def _behaviour(judged: Judged, steps: int) -> Learner:
    """BC on what was recorded, with the run's own normalisation."""
    run = judged.run
    config = TrainConfig(
        algorithm="bc",
        steps=steps,
        hidden=(64, 64),
        learning_rate=1e-3,
        log_every=steps,
        evaluate_every=steps,
        checkpoint_every=steps,
    )
    sizes = len(run.normaliser.mean), len(run.action_low)
    learner = create_learner(config, *sizes, unit_choices(run.contract))
    data = pack(judged.seen, run.normaliser, config)
    run_block(learner, data, draw_block(config, 0, len(data)), 0)
    return learner


@torch.no_grad()
def _log_prob(policy: Random, states: Tensor, actions: Tensor) -> Doubles:
    return policy.log_prob(policy(states), actions).double().numpy()


@torch.no_grad()
def _draw(policy: Random, states: Tensor, rng: torch.Generator) -> Floats:
    parameters = policy(states)
    if isinstance(policy, CategoricalActor):
        chosen = torch.multinomial(parameters.softmax(dim=-1), 1, generator=rng)
        return policy.choices[chosen].numpy()
    std = policy.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
    noise = torch.randn(parameters.shape, generator=rng)
    return (parameters + std * noise).clamp(-1.0, 1.0).numpy()
