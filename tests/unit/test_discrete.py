"""Learning which of K choices to take: losses against an oracle, and what is learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.learning.actors import AnyActor
from training.learning.batch import Batch, unpack
from training.learning.bc import Bc
from training.learning.config import ConfigError, TrainConfig
from training.learning.discrete import (
    CategoricalActor,
    ChoiceCritic,
    GreedyPolicy,
    choice_numbers,
    unit_choices,
)
from training.learning.iql import Iql
from training.learning.learner import create_learner

Array = np.ndarray

CHOICES = torch.tensor([-1.0, 0.2, 1.0])


def some_batch(rows: int = 40) -> Batch:
    """Float64 transitions: three observations, one of three choices, some of them terminal."""
    rng = np.random.default_rng(1)
    # As `to_unit` leaves them: off the ends of [-1, 1].
    actions = np.clip(rng.choice(CHOICES.double().numpy(), (rows, 1)), -1 + 1e-5, 1 - 1e-5)
    columns = [
        rng.normal(size=(rows, 3)),
        actions,
        rng.normal(size=(rows, 3)),
        rng.normal(size=(rows, 1)),
        rng.random((rows, 1)) > 0.2,
    ]
    return unpack(torch.from_numpy(np.concatenate(columns, axis=1)), 1)


def some_iql(config: TrainConfig | None = None) -> Iql:
    rng = torch.Generator().manual_seed(0)
    return Iql(config or TrainConfig(hidden=(16, 8)), 3, 1, rng, CHOICES).double()


def mlp(x: Array, net: torch.nn.Module) -> Array:
    """The oracle's network: ReLU between linear layers, in float64."""
    linear = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linear):
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        x = np.maximum(x, 0) if i < len(linear) - 1 else x
    return x


def test_losses_of_an_update_equal_a_numpy_oracle_s() -> None:
    iql, batch = some_iql(), some_batch()
    assert isinstance(iql.critic, ChoiceCritic)
    seen, following = batch.observations.numpy(), batch.next_observations.numpy()
    rows = np.arange(len(seen))
    taken = np.abs(batch.actions.numpy() - CHOICES.numpy()).argmin(axis=1)
    q = np.stack([mlp(seen, net)[rows, taken] for net in iql.critic.layers])
    target = np.min([mlp(seen, net)[rows, taken] for net in iql.target_critic.layers], axis=0)
    logits = mlp(seen, iql.actor.layers)
    u = target - mlp(seen, iql.value.layers)[:, 0]

    value, critic, actor = iql.update(batch, step=0).tolist()

    # Actor and critics see the value function after its step.
    advantage = target - mlp(seen, iql.value.layers)[:, 0]
    backup = (
        batch.rewards.numpy()
        + 0.99 * batch.masks.numpy() * (mlp(following, iql.value.layers)[:, 0])
    )
    weights = np.minimum(np.exp(3.0 * advantage), 100.0)
    log_prob = logits[rows, taken] - np.log(np.exp(logits).sum(axis=1))
    assert value == pytest.approx(np.mean(np.where(u > 0, 0.7, 0.3) * u**2), rel=1e-12)
    assert critic == pytest.approx(((backup - q) ** 2).mean(axis=1).sum(), rel=1e-12)
    assert actor == pytest.approx(-np.mean(weights * log_prob), rel=1e-12)


def test_only_the_values_of_choices_in_the_batch_move_and_all_of_those_do() -> None:
    iql, batch = some_iql(), some_batch()
    iql.optimisers["actor_and_critic"].zero_grad()
    of_critic, _ = iql._critic_and_actor_losses(batch, torch.zeros(len(batch.rewards)).double())
    (values,) = torch.autograd.grad(of_critic, [iql.critic.layers[0][-1].bias])

    taken = choice_numbers(batch.actions, CHOICES.double())
    q = iql.critic(batch.state_actions)[0]
    next_v = iql.value(batch.next_observations)
    error = q - batch.rewards - 0.99 * batch.masks * next_v
    by_hand = [(2 * error[taken == k]).sum().item() / len(q) for k in range(3)]
    assert values.tolist() == pytest.approx(by_hand, rel=1e-10)


def bandit(rows: int, rng: np.random.Generator) -> Batch:
    """One step: the last choice pays where the observation is above 0, the first below."""
    seen = rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32)
    actions = rng.choice(CHOICES.numpy(), (rows, 1))
    rewards = actions * np.sign(seen[:, :1])
    columns = [seen, actions, seen, rewards, np.zeros((rows, 1))]
    return unpack(torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32)), 1)


def test_critics_learn_the_rewards_and_the_policy_takes_the_best_choice() -> None:
    config = TrainConfig(
        hidden=(32, 32), steps=400, learning_rate=3e-3, inverse_temperature=5.0, polyak=0.05
    )
    iql = Iql(config, 3, 1, torch.Generator().manual_seed(0), CHOICES)
    rng = np.random.default_rng(0)

    for step in range(400):
        iql.update(bandit(256, rng), step)

    clear = torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]])
    assert isinstance(iql.critic, ChoiceCritic)
    expected = torch.stack([CHOICES, -CHOICES])
    torch.testing.assert_close(
        iql.critic.values(clear).detach(), expected.expand(2, 2, 3), atol=0.15, rtol=0
    )
    assert iql.deployed()(clear).tolist() == [[1.0], [-1.0]]


def test_cloning_learns_the_likelier_choice_and_how_likely_it_is() -> None:
    rng = np.random.default_rng(0)
    config = TrainConfig(algorithm="bc", hidden=(16,), steps=400, learning_rate=1e-2)
    bc = Bc(config, 3, 1, torch.Generator().manual_seed(0), CHOICES)
    numbers = rng.choice(3, size=(1000, 1), p=[0.2, 0.7, 0.1])
    seen = rng.normal(size=(1000, 3)).astype(np.float32)
    columns = [seen, CHOICES.numpy()[numbers], seen, np.zeros((1000, 2), np.float32)]
    batch = unpack(torch.from_numpy(np.concatenate(columns, axis=1)), 1)

    for step in range(400):
        bc.update(batch, step)

    assert bc.deployed()(torch.zeros(1, 3)).item() == CHOICES[1].item()
    share = torch.softmax(bc.actor(torch.from_numpy(seen)), dim=1).mean(dim=0)
    frequency = np.bincount(numbers[:, 0]) / 1000
    np.testing.assert_allclose(share.detach().numpy(), frequency, atol=0.02)
    assert bc.evaluate(batch)["actor_loss"] == pytest.approx(0.80, abs=0.1)


def test_of_equally_likely_choices_the_first_is_taken() -> None:
    actor: AnyActor = CategoricalActor(2, CHOICES, (4,), torch.Generator().manual_seed(0))
    for parameter in actor.parameters():
        parameter.data.zero_()
    assert isinstance(actor, CategoricalActor)
    assert GreedyPolicy(actor)(torch.ones(5, 2)).tolist() == [[-1.0]] * 5


def test_a_contract_s_choices_are_scaled_by_their_ends() -> None:
    from tests.small_dataset import point_contract

    content = point_contract().canonical()
    action = {"name": "v", "topic": "push", "path": "x", "choices": [5, -3, 1], "safe": 1}
    discrete = type(point_contract()).model_validate({**content, "actions": [action]})
    scaled = unit_choices(discrete)
    assert scaled is not None
    assert scaled.tolist() == [1.0, -1.0, 0.0]
    assert unit_choices(point_contract()) is None
    assert unit_choices(None) is None


def test_what_is_not_made_for_choices_says_so() -> None:
    with pytest.raises(ConfigError, match="extraction is 'sampled', but the action is one of 3"):
        create_learner(TrainConfig(extraction="sampled"), 3, 1, CHOICES)
    with pytest.raises(ConfigError, match="algorithm 'cql' is for continuous actions, this one is"):
        create_learner(TrainConfig(algorithm="cql"), 3, 1, CHOICES)
