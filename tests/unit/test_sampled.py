"""The model of the behaviour, and acting by choice among its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.learning.batch import Batch, unpack
from training.learning.config import ConfigError, TrainConfig, load_config, with_samples
from training.learning.iql import Iql
from training.learning.mixture import MixtureActor
from training.learning.networks import TwinCritic
from training.learning.ranking import RankingCritic
from training.learning.sampled import SampledPolicy, Selection


def some_mixture(components: int = 3) -> MixtureActor:
    rng = torch.Generator().manual_seed(0)
    return MixtureActor(4, 2, components, (16,), rng).double()


def states(rows: int = 30) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(rows, 4)))


class Hill(nn.Module):
    """Worth that is highest where the action is `top`."""

    def __init__(self, top: list[float]) -> None:
        super().__init__()
        self.top = torch.tensor(top, dtype=torch.float64)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return -(actions - self.top).square().sum(dim=-1)


def policy(top: list[float], *, selection: Selection = "best", **kwargs: float) -> SampledPolicy:
    whole = {key: int(value) for key, value in kwargs.items() if key != "beta"}
    return SampledPolicy(
        some_mixture(),
        Hill(top),
        selection=selection,
        inverse_temperature=kwargs.get("beta", 1.0),
        **{"samples": 32, **whole},
    ).double()


# -- the model ---------------------------------------------------------------------------


def test_the_density_is_that_of_a_mixture_of_gaussians() -> None:
    model, seen = some_mixture(), states()
    actions = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, size=(30, 2)))
    raw = model(seen).detach().numpy()

    logits, means, log_stds = raw[:, :3], np.tanh(raw[:, 3:9]), np.clip(raw[:, 9:], -5, 2)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    density = np.zeros(30)
    for k in range(3):
        mean, std = means[:, 2 * k : 2 * k + 2], np.exp(log_stds[:, 2 * k : 2 * k + 2])
        of_each = np.exp(-0.5 * ((actions.numpy() - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)
        density += weights[:, k] * of_each.prod(axis=1)
    np.testing.assert_allclose(
        model.log_prob(model(seen), actions).detach().numpy(), np.log(density), rtol=1e-12
    )


def test_draws_have_the_shares_and_the_spread_of_the_parts() -> None:
    model = some_mixture(components=2)
    logits, means, log_stds = [np.log(0.25), np.log(0.75)], [-0.5, 0.0, 0.5, 0.2], [-4.0] * 4
    parameters = torch.tensor([[*logits, *np.arctanh(means), *log_stds]])
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 2)))
    uniform = (torch.arange(4000) + 0.5).double() / 4000

    drawn = model.draw(parameters, uniform, noise)[0].numpy()

    left = drawn[:, 0] < 0
    assert left.mean() == 0.25
    np.testing.assert_allclose(drawn[~left].mean(axis=0), [0.5, 0.2], atol=0.002)
    np.testing.assert_allclose(drawn[~left].std(axis=0), np.exp(-4.0), rtol=0.05)


def test_two_ways_of_doing_it_are_learnt_as_two() -> None:
    rng = np.random.default_rng(0)
    config = TrainConfig(
        extraction="sampled", hidden=(32,), steps=300, learning_rate=5e-3, mixture_components=2
    )
    iql = Iql(config, 2, 1, torch.Generator().manual_seed(0))

    def batch() -> Batch:
        seen = rng.normal(size=(256, 2))
        actions = rng.choice([-0.8, 0.8], size=(256, 1)) + rng.normal(0, 0.05, (256, 1))
        columns = [seen, actions, seen, actions, np.zeros((256, 1))]  # the reward is the action
        return unpack(torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32)), 1)

    for step in range(300):
        iql.update(batch(), step)

    assert isinstance(iql.actor, MixtureActor)
    _, means, log_stds = iql.actor.parts(iql.actor(torch.zeros(1, 2)))
    assert sorted(means.flatten().tolist()) == pytest.approx([-0.8, 0.8], abs=0.05)
    assert log_stds.exp().max().item() < 0.25  # one Gaussian over both would have 0.8
    # Critics prefer the one, and the policy takes it, not the mean of both.
    assert iql.deployed()(torch.zeros(1, 2)).item() > 0.6
    assert set(iql.evaluate(batch())) >= {"actor_loss", "action_error", "policy_value"}


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_ranking_gives_the_smaller_value_of_the_twin_critics(rows: int, layer_norm: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    critic = TwinCritic(6, (16, 16), rng, layer_norm=layer_norm).double()
    for parameter in critic.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    seen = states(rows)
    actions = torch.rand((rows, 7, 2), generator=rng, dtype=torch.float64)
    pairs = torch.cat([seen[:, None].expand(-1, 7, -1), actions], dim=2)

    with torch.no_grad():
        expected = torch.stack([critic(row).amin(dim=0) for row in pairs])

    # Rounding of double precision only.
    torch.testing.assert_close(
        RankingCritic(critic, 4)(seen, actions), expected, rtol=1e-12, atol=0
    )


# -- the choice --------------------------------------------------------------------------


@pytest.mark.parametrize("selection", ["best", "drawn"])
@pytest.mark.parametrize("refinements", [0, 3])
def test_every_action_is_finite_and_within_the_limits(
    selection: Selection, refinements: int
) -> None:
    far = 1e3 * states()
    actions = policy([5.0, -5.0], selection=selection, refinements=refinements)(far)
    assert actions.isfinite().all()
    assert actions.abs().max().item() <= 1.0


def test_the_best_of_more_samples_is_no_worse() -> None:
    seen, top = states(), [0.3, -0.2]
    worths = [Hill(top)(seen, policy(top, samples=n)(seen)).mean() for n in (1, 8, 64)]
    assert worths == sorted(worths)
    assert worths[2] > worths[0] + 0.05


def test_refinement_climbs_to_where_no_sample_lay() -> None:
    top = [0.3, -0.2]
    plain, refined = (policy(top, samples=64, refinements=rounds) for rounds in (0, 4))
    distance = [(chooses(states()) - Hill(top).top).norm(dim=1) for chooses in (plain, refined)]
    assert (distance[1] <= distance[0] + 1e-12).all()
    assert distance[1].median() < 0.1 * distance[0].median()


def test_the_same_state_gives_the_same_action_and_another_seed_another() -> None:
    first, again, other = (policy([0.0, 0.0], seed=seed, samples=4) for seed in (0, 0, 1))
    assert torch.equal(first(states()), again(states()))
    assert not torch.equal(first(states()), other(states()))


def test_drawing_by_exp_beta_advantage_goes_from_any_sample_to_the_best() -> None:
    best = policy([1.0, 1.0])(states())
    hot = policy([1.0, 1.0], selection="drawn", beta=1e6)(states())
    torch.testing.assert_close(hot, best)
    # With beta 0 all samples are alike: over many seeds their mean is the behaviour's.
    cold = [policy([1.0, 1.0], selection="drawn", beta=0.0, seed=i)(states()) for i in range(200)]
    model = some_mixture()
    engine = torch.quasirandom.SobolEngine(3, scramble=True, seed=9)
    noise = engine.draw(4096).double().clamp(1e-6, 1 - 1e-6)
    behaviour = model.draw(model(states()), noise[:, 0], torch.special.ndtri(noise[:, 1:]))
    # 0.6 is about the spread of one action: 200 seeds leave 0.04 of it, so 4.5 of those here.
    difference = torch.stack(cold).mean(dim=0) - behaviour.mean(dim=1)
    assert difference.abs().max().item() < 0.2


# -- the config --------------------------------------------------------------------------


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="extraction 'sampled' needs the critics of algorithm"):
        load_config(None, ["extraction=sampled", "algorithm=bc"])
    with pytest.raises(ConfigError, match="refinements 2 with samples 3: a spread needs at least"):
        load_config(None, ["extraction=sampled", "samples=3", "refinements=2"])


def test_the_number_of_samples_can_be_changed_for_export() -> None:
    config = TrainConfig(extraction="sampled", samples=8)
    assert with_samples(config, 64).samples == 64
    with pytest.raises(ConfigError, match="samples = 0: Input should be greater than or equal"):
        with_samples(config, 0)
    with pytest.raises(ConfigError, match="samples 8 are asked for, but the run has extraction"):
        with_samples(TrainConfig(), 8)
