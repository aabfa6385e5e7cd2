from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.datasets.dataset import Dataset
from training.datasets.scaling import Normaliser
from training.learning.batch import Batch, pack, unpack
from training.learning.config import TrainConfig
from training.learning.iql import (
    Iql,
    actor_loss,
    advantage_weights,
    cosine_decay,
    critic_loss,
    value_loss,
)

Array = NDArray[np.float64]

CONFIG = TrainConfig(hidden=(16, 8), steps=100)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def some_batch(rows: int = 32, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    packed = rng.normal(size=(rows, 3 + 2 + 3 + 2))
    packed[:, 3:5] = np.tanh(packed[:, 3:5])
    packed[:, -1] = rng.random(rows) < 0.8
    return unpack(torch.from_numpy(packed), action_size=2)


def some_iql(config: TrainConfig = CONFIG) -> Iql:
    iql = Iql(config, 3, 2, torch.Generator().manual_seed(0)).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases and std away from 0, so that the tests see them
        for parameter in iql.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=rng)
            parameter.add_(0.1 * noise)
    return iql


# -- cases computed by hand --------------------------------------------------------------


def test_value_loss_weighs_positive_errors_by_the_expectile() -> None:
    # u = 2 and -1: (0.7 * 4 + 0.3 * 1) / 2
    assert value_loss(tensor(3, 0), tensor(1, 1), 0.7).item() == pytest.approx(1.55, rel=1e-12)


def test_critic_loss_bootstraps_except_at_a_terminal() -> None:
    # Targets 1 + 0.9 * 10 = 10 and 2: errors 1, 0 of the first critic and 0, 3 of the second.
    q = torch.stack([tensor(9, 2), tensor(10, 5)])

    loss = critic_loss(q, tensor(1, 2), tensor(1, 0), tensor(10, 10), discount=0.9)

    assert loss.item() == pytest.approx(0.5 + 4.5, rel=1e-12)


def test_advantage_weights_are_capped() -> None:
    weights = advantage_weights(tensor(0, 1, -1, 50), 3.0, 100.0)

    expected = [1.0, math.exp(3), math.exp(-3), 100.0]
    assert weights.tolist() == pytest.approx(expected, rel=1e-12)


def test_actor_loss_is_the_weighted_negative_log_likelihood() -> None:
    assert actor_loss(tensor(-1, -2), tensor(3, 0.5)).item() == pytest.approx(2.0, rel=1e-12)


def test_the_cosine_falls_from_one_to_zero() -> None:
    factors = [cosine_decay(step, 100) for step in (0, 50, 100, 101)]

    assert factors == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-15)


# -- a numpy oracle of one update --------------------------------------------------------


def mlp(x: Array, layers: list[tuple[Array, Array]]) -> Array:
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0.0)
    return x @ layers[-1][0] + layers[-1][1]


def linear_layers(net: torch.nn.Module) -> list[tuple[Array, Array]]:
    return [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in net.layers
        if isinstance(layer, torch.nn.Linear)
    ]


def critic_layers(net: torch.nn.Module, c: int) -> list[tuple[Array, Array]]:
    pairs = zip(net.weights, net.biases, strict=True)
    return [(w[c].detach().numpy().copy(), b[c].detach().numpy().copy()) for w, b in pairs]


def test_losses_of_an_update_equal_a_numpy_oracle_s() -> None:
    iql, batch = some_iql(), some_batch()
    observations, following = batch.observations.numpy(), batch.next_observations.numpy()
    pairs = batch.state_actions.numpy()
    target = np.min([mlp(pairs, critic_layers(iql.target_critic, c))[:, 0] for c in (0, 1)], axis=0)
    q = [mlp(pairs, critic_layers(iql.critic, c))[:, 0] for c in (0, 1)]
    mean = np.tanh(mlp(observations, linear_layers(iql.actor)))
    log_std = iql.actor.log_std.detach().numpy().copy()
    u = target - mlp(observations, linear_layers(iql.value))[:, 0]

    value, critic, actor = iql.update(batch, step=0).tolist()

    new_v = linear_layers(iql.value)  # actor and critics see the value function after its step
    advantage = target - mlp(observations, new_v)[:, 0]
    weights = np.minimum(np.exp(3.0 * advantage), 100.0)
    spread = (batch.actions.numpy() - mean) / np.exp(log_std)
    log_prob = (-0.5 * spread**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    backup = batch.rewards.numpy() + 0.99 * batch.masks.numpy() * mlp(following, new_v)[:, 0]

    expected_value = np.mean(np.where(u > 0, 0.7, 0.3) * u**2)
    expected_critic = sum(np.mean((backup - one) ** 2) for one in q)
    assert value == pytest.approx(expected_value, rel=1e-12)
    assert critic == pytest.approx(expected_critic, rel=1e-12)
    assert actor == pytest.approx(-np.mean(weights * log_prob), rel=1e-12)


def test_targets_move_a_polyak_step_towards_the_updated_critics() -> None:
    iql = some_iql()
    before = [parameter.clone() for parameter in iql.target_critic.parameters()]

    iql.update(some_batch(), step=0)

    for old, target, critic in zip(
        before, iql.target_critic.parameters(), iql.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.995 * old + 0.005 * critic)


def test_the_actor_stands_still_when_its_learning_rate_has_decayed() -> None:
    iql = some_iql()
    actor, critic = iql.actor.layers[0].weight.clone(), iql.critic.weights[0].clone()

    iql.update(some_batch(), step=100)

    assert torch.equal(iql.actor.layers[0].weight, actor)
    assert not torch.equal(iql.critic.weights[0], critic)


def test_with_inverse_temperature_0_the_actor_imitates() -> None:
    iql, batch = some_iql(TrainConfig(hidden=(16, 8), inverse_temperature=0.0)), some_batch()
    log_prob = iql.actor.log_prob(iql.actor(batch.observations), batch.actions)

    losses = iql.update(batch, step=0)

    assert losses[2].item() == pytest.approx(-log_prob.mean().item(), rel=1e-12)


def test_a_deterministic_actor_descends_half_the_squared_error() -> None:
    config = TrainConfig(hidden=(16, 8), actor="deterministic", inverse_temperature=0.0)
    iql = Iql(config, 3, 2, torch.Generator().manual_seed(0)).double()
    batch = some_batch()
    error = iql.actor(batch.observations) - batch.actions
    constant = math.log(2 * math.pi)  # of two actions

    losses = iql.update(batch, step=0)

    half = 0.5 * error.square().sum(dim=1).mean().item()
    assert losses[2].item() == pytest.approx(half + constant, rel=1e-12)
    assert iql.actor.log_std.tolist() == [0.0, 0.0]


def test_evaluation_changes_nothing_and_agrees_with_the_losses() -> None:
    iql, batch = some_iql(), some_batch()
    before = {name: value.clone() for name, value in iql.state_dict().items()}

    evaluated = iql.evaluate(batch)

    assert all(torch.equal(value, before[name]) for name, value in iql.state_dict().items())
    assert evaluated["value_loss"] == pytest.approx(iql.update(batch, 0)[0].item(), rel=1e-12)
    assert set(Iql.loss_names) <= set(evaluated)


# -- rows and batches --------------------------------------------------------------------


def test_a_timeout_bootstraps_and_a_terminal_does_not() -> None:
    zeros, flags = np.zeros((3, 1), np.float32), np.array([False, True, False])
    dataset = Dataset(
        observations=np.array([[1.0], [2.0], [3.0]], np.float32),
        actions=zeros,
        rewards=np.array([1.0, 2.0, 3.0], np.float32),
        terminals=flags,
        timeouts=np.array([False, False, True]),
        next_observations=zeros + 4.0,
        action_low=np.array([-1.0]),
        action_high=np.array([1.0]),
    )
    config = TrainConfig(reward_scale=2.0, reward_shift=-1.0)

    batch = unpack(pack(dataset, Normaliser.identity(1), config), action_size=1)

    assert batch.masks.tolist() == [1.0, 0.0, 1.0]
    assert batch.rewards.tolist() == [1.0, 3.0, 5.0]
    assert batch.state_actions.tolist() == [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert batch.next_observations.flatten().tolist() == [4.0, 4.0, 4.0]
