"""Which actor and critics a config and the kind of action ask for, and what of them acts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.learning.config import ConfigError, TrainConfig
from training.learning.discrete import CategoricalActor, ChoiceCritic, GreedyPolicy
from training.learning.mixture import MixtureActor
from training.learning.networks import Actor, TwinCritic, create_actor
from training.learning.ranking import RankingCritic
from training.learning.sampled import SampledPolicy

AnyActor = Actor | CategoricalActor | MixtureActor
AnyCritic = TwinCritic | ChoiceCritic


def create_policy(
    config: TrainConfig,
    observation_size: int,
    action_size: int,
    rng: torch.Generator,
    choices: Tensor | None = None,
) -> AnyActor:
    """Returns what is trained by likelihood, initialised from `rng`.

    Args:
        choices: the values of a discrete action in [-1, 1], (K,); None for a continuous one.

    Raises:
        ConfigError: the config asks for samples of an action that has but K values.
    """
    layer_norm = config.layer_norm in ("actor", "all")
    if choices is not None:
        if config.extraction == "sampled":
            raise ConfigError(
                f"extraction is 'sampled', but the action is one of {len(choices)} choices, "
                f"all of which the critics rank: leave extraction at 'weighted'"
            )
        return CategoricalActor(
            observation_size,
            choices,
            config.hidden,
            rng,
            layer_norm=layer_norm,
            dropout=config.dropout,
        )
    if config.extraction == "sampled":
        return MixtureActor(
            observation_size,
            action_size,
            config.mixture_components,
            config.hidden,
            rng,
            layer_norm=layer_norm,
            dropout=config.dropout,
        )
    return create_actor(config, observation_size, action_size, rng)


def create_critic(
    config: TrainConfig,
    observation_size: int,
    action_size: int,
    rng: torch.Generator,
    choices: Tensor | None = None,
) -> AnyCritic:
    """Returns both critics, initialised from `rng`; arguments as for `create_policy`."""
    layer_norm = config.layer_norm in ("critic", "all")
    if choices is not None:
        return ChoiceCritic(observation_size, choices, config.hidden, rng, layer_norm=layer_norm)
    return TwinCritic(observation_size + action_size, config.hidden, rng, layer_norm=layer_norm)


def acting(actor: AnyActor, critic: nn.Module | None, config: TrainConfig) -> nn.Module:
    """Returns what acts: normalised observations (B, O) to actions (B, A) in [-1, 1].

    Args:
        critic: ranks the samples of a mixture; None where nothing is ranked.
    """
    if isinstance(actor, CategoricalActor):
        return GreedyPolicy(actor)
    if isinstance(actor, MixtureActor):
        # By the config's rule: extraction 'sampled' is of IQL.
        assert isinstance(critic, TwinCritic)
        return SampledPolicy(
            actor,
            RankingCritic(critic, critic.weights[0].shape[1] - actor.action_size),
            samples=config.samples,
            refinements=config.refinements,
            selection=config.selection,
            inverse_temperature=config.inverse_temperature,
            seed=config.seed,
        )
    return actor
