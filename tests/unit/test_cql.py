from __future__ import annotations

import math

import pytest
import torch

from training.learning.batch import Batch, unpack
from training.learning.config import TrainConfig
from training.learning.cql import Cql, SoftActor, conservative_loss, soft_actor_loss

CONFIG = TrainConfig(
    algorithm="cql", hidden=(32, 32), learning_rate=3e-3, conservative_samples=4, discount=0.5
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task_batch(rows: int = 128) -> Batch:
    """One-step episodes whose reward is the action, and whose actions are all about 0.5 s."""
    rng = seeded(3)
    states = torch.rand(rows, 2, generator=rng) * 2.0 - 1.0
    actions = (0.5 * states[:, :1] + 0.1 * torch.randn(rows, 1, generator=rng)).clamp(-0.99, 0.99)
    return unpack(torch.cat([states, actions, states, actions, 0.0 * actions], dim=1), 1)


def test_conservative_loss_is_log_sum_exp_over_proposals_less_q_of_the_data() -> None:
    # One state, two critics. Two proposals of density 1/2 and 1/4:
    # log((e^1 / (1/2) + e^0 / (1/4)) / 2) = log(e + 2), and log((2 e^2 + 4 e^3) / 2).
    proposed = torch.tensor([[[1.0, 0.0]], [[2.0, 3.0]]], dtype=torch.float64)
    log_density = torch.tensor([[0.5, 0.25]], dtype=torch.float64).log()
    q = torch.tensor([[1.5], [-1.0]], dtype=torch.float64)

    loss = conservative_loss(proposed, log_density, q)

    expected = (math.log(math.e + 2) - 1.5) + (math.log(math.e**2 + 2 * math.e**3) + 1.0)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_where_q_is_the_same_everywhere_the_penalty_is_the_volume_of_the_actions() -> None:
    # log of the integral of exp(q) over [-1, 1]^3, less q: 3 log 2 for each of two critics.
    log_density = torch.full((5, 7), -3 * math.log(2.0))

    loss = conservative_loss(torch.full((2, 5, 7), 4.0), log_density, torch.full((2, 5), 4.0))

    assert loss.item() == pytest.approx(6 * math.log(2.0), rel=1e-6)


def test_the_soft_actor_loss_weighs_log_likelihood_by_temperature() -> None:
    log_prob, q = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 2.0])

    assert soft_actor_loss(log_prob, q, torch.tensor(0.5)).item() == pytest.approx(-0.25)


def test_drawn_actions_have_the_density_of_a_squashed_gaussian() -> None:
    actor = SoftActor(3, 2, CONFIG, seeded()).double()
    states = torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    noise = torch.randn(4, 5, 2, dtype=torch.float64, generator=seeded(2))

    actions, log_prob = actor.draw(states, noise)

    mean, log_std = actor.layers(states)[:, None].chunk(2, dim=-1)
    normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
    slope = (1.0 - actions.square()).log()
    expected = (normal.log_prob(torch.atanh(actions)) - slope).sum(dim=-1)
    # atanh of actions near the ends loses what tanh rounded away
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_the_density_stays_finite_far_out() -> None:
    actor = SoftActor(1, 1, CONFIG, seeded())

    _, log_prob = actor.draw(torch.tensor([[1e3], [-1e3]]), torch.ones(2, 1, 1))

    assert log_prob.isfinite().all()


def test_critics_prefer_the_data_s_actions_and_the_policy_stays_with_them() -> None:
    cql, batch = Cql(CONFIG, 2, 1, seeded()), task_batch()

    for step in range(200):
        cql.update(batch, step)

    # By reward alone the best action is 1, everywhere; there are no data for it.
    states, best = batch.observations, torch.ones(128, 1)
    with torch.no_grad():
        q_best = cql.critic(torch.cat([states, best], dim=1)).mean()
        q_data = cql.critic(batch.state_actions).mean()
        error = (cql.deployed()(states) - 0.5 * states[:, :1]).abs().mean()
    assert q_data > q_best
    assert error < 0.25


def test_the_bellman_loss_bootstraps_except_at_a_terminal() -> None:
    cql, batch = Cql(CONFIG, 2, 1, seeded()), task_batch()  # every transition is terminal

    loss = cql.update(batch, step=0)[0].item()

    fresh = Cql(CONFIG, 2, 1, seeded())
    with torch.no_grad():
        error = fresh.critic(batch.state_actions) - batch.rewards
    assert loss == pytest.approx(error.square().mean(dim=1).sum().item(), rel=1e-5)


def test_the_temperature_moves_towards_the_target_entropy() -> None:
    cql, batch = Cql(CONFIG, 2, 1, seeded()), task_batch()

    for step in range(20):  # the actor begins wider than one nat below uniform
        cql.update(batch, step)

    assert cql.log_temperature.item() < 0


def test_evaluation_changes_nothing() -> None:
    cql, batch = Cql(CONFIG, 2, 1, seeded()), task_batch()
    generator = cql.generators["actions"].get_state()
    before = {name: value.clone() for name, value in cql.state_dict().items()}

    assert cql.evaluate(batch) == cql.evaluate(batch)

    assert torch.equal(cql.generators["actions"].get_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in cql.state_dict().items())
