from __future__ import annotations

import numpy as np
import pytest
import torch

from training.learning.networks import Actor, DeployedPolicy, TwinCritic, Value, drop_out


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_stacked_critics_equal_two_separate_networks() -> None:
    critic = TwinCritic(5, (8, 6), rng()).double()
    for bias in critic.biases:
        torch.nn.init.normal_(bias, generator=rng(1))
    x = torch.randn(7, 5, dtype=torch.float64, generator=rng(2))

    q = critic(x)

    for c in (0, 1):
        w1, w2, w3 = (weight[c] for weight in critic.weights)
        b1, b2, b3 = (bias[c] for bias in critic.biases)
        alone = (torch.relu(torch.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3).squeeze(-1)
        torch.testing.assert_close(q[c], alone)


def test_networks_start_orthogonal_with_gain_sqrt_2_and_zero_bias() -> None:
    value, critic = Value(4, (8,), rng()), TwinCritic(6, (8,), rng())

    first = value.layers[0]
    torch.testing.assert_close(first.weight.T @ first.weight, 2 * torch.eye(4))
    for weight in critic.weights[0].detach():
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(6))
    assert not any(bias.any() for bias in [first.bias, *critic.biases])
    assert not torch.equal(*critic.weights[0].detach())


def test_equal_seeds_give_equal_weights() -> None:
    one, same, other = (Value(4, (8,), rng(seed)) for seed in (3, 3, 4))

    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_log_prob_is_the_normal_density() -> None:
    actor = Actor(3, 2, (8,), rng(), learn_std=True).double()
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-1.0, 0.5]))
    mean = torch.tensor([[0.2, -0.3], [0.0, 0.9]], dtype=torch.float64)
    actions = torch.tensor([[0.1, 0.4], [-1.0, 1.0]], dtype=torch.float64)

    expected = torch.distributions.Normal(mean, actor.log_std.exp()).log_prob(actions).sum(-1)

    torch.testing.assert_close(actor.log_prob(mean, actions), expected)


def test_log_std_is_kept_within_its_bounds() -> None:
    actor = Actor(1, 1, (4,), rng(), learn_std=True)
    zero = torch.zeros(1, 1)
    with torch.no_grad():
        actor.log_std.fill_(-9.0)

    # At the mean the density of std exp(-5) is 5 - log(2 pi) / 2 in logarithm.
    assert actor.log_prob(zero, zero).item() == pytest.approx(5.0 - 0.9189385, abs=1e-5)


def test_an_actor_without_tanh_may_leave_the_limits_and_what_acts_may_not() -> None:
    actor = Actor(1, 1, (16,), rng(), squash=False)
    policy = DeployedPolicy(actor, np.zeros(1), np.ones(1), np.array([-1.0]), np.array([1.0]))
    far = torch.linspace(-100, 100, 201)[:, None]

    with torch.no_grad():
        mean, action = actor(far), policy(far)

    assert mean.abs().max() > 1.0
    torch.testing.assert_close(action, mean.clamp(-1.0, 1.0))


def test_dropout_happens_only_where_a_generator_is_given() -> None:
    actor, plain = (Actor(3, 2, (64, 64), rng(), dropout=share) for share in (0.5, 0.0))
    states = torch.randn(5, 3, generator=rng(1))

    torch.testing.assert_close(actor(states), plain(states))
    torch.testing.assert_close(plain(states, rng(2)), plain(states))
    assert not torch.equal(actor(states, rng(2)), actor(states))
    assert torch.equal(actor(states, rng(2)), actor(states, rng(2)))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    dropped = drop_out(torch.full((1000, 100), 2.0), 0.2, rng())

    # 1e5 draws: a standard error of 0.0013 of the share, 0.0032 of the mean
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.006)
    assert dropped.mean().item() == pytest.approx(2.0, abs=0.016)
    assert sorted(set(dropped.flatten().tolist())) == [0.0, 2.5]


def test_layer_norm_of_stacked_critics_equals_that_of_separate_networks() -> None:
    critic = TwinCritic(5, (8,), rng(), layer_norm=True).double()
    for parameter in [*critic.gains, *critic.offsets]:
        torch.nn.init.normal_(parameter, generator=rng(1))
    x = torch.randn(7, 5, dtype=torch.float64, generator=rng(2))

    q = critic(x)

    for c in (0, 1):
        norm = torch.nn.LayerNorm(8).double()
        norm.weight.data, norm.bias.data = critic.gains[0][c, 0].data, critic.offsets[0][c, 0].data
        hidden = torch.relu(norm(x @ critic.weights[0][c] + critic.biases[0][c]))
        alone = (hidden @ critic.weights[1][c] + critic.biases[1][c]).squeeze(-1)
        torch.testing.assert_close(q[c], alone)


def test_options_leave_the_initial_weights_as_they_are() -> None:
    plain, normed = (TwinCritic(5, (8,), rng(), layer_norm=norm) for norm in (False, True))

    for ours, theirs in zip(plain.weights, normed.weights, strict=True):
        assert torch.equal(ours, theirs)


def test_deployed_policy_takes_and_gives_si_units() -> None:
    actor = Actor(2, 2, (16,), rng(), learn_std=True)
    mean, std = np.array([10.0, -3.0], np.float32), np.array([2.0, 0.1], np.float32)
    low, high = np.array([-0.5, 0.0]), np.array([0.5, 8.0])
    policy = DeployedPolicy(actor, mean, std, low, high).eval()
    observations = np.array([[11.0, -3.0], [10.0, -2.5]], np.float32)

    with torch.no_grad():
        unit = actor(torch.from_numpy((observations - mean) / std)).numpy()
        actions = policy(torch.from_numpy(observations)).numpy()

    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, low + (unit + 1) / 2 * (high - low), rtol=1e-6)


def test_deployed_policy_never_leaves_the_limits() -> None:
    actor = Actor(1, 1, (16,), rng(), learn_std=True)
    low, high = np.array([-0.1]), np.array([0.3])
    policy = DeployedPolicy(actor, np.zeros(1), np.ones(1), low, high)

    with torch.no_grad():
        actions = policy(torch.linspace(-1e6, 1e6, 2001)[:, None])

    assert actions.min().item() == np.float32(-0.1)
    assert actions.max().item() == np.float32(0.3)
