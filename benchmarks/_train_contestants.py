"""What our update is measured against: a plain loop, and the matrix products alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.learning.batch import unpack
from training.learning.products import affine, input_gradient, weight_gradient

Slice = Callable[[int], None]  # takes so many updates


def plain_iql(data: Tensor, action_size: int, config: dict[str, float], batch_size: int) -> Slice:
    """IQL as one writes it down: modules, three optimisers, a loop over parameters."""
    observation_size = (data.shape[1] - action_size - 2) // 2

    def network(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Linear(inputs, 256), nn.ReLU()),
            *(nn.Linear(256, 256), nn.ReLU()),
            nn.Linear(256, outputs),
        )

    value, actor = network(observation_size, 1), network(observation_size, action_size)
    log_std = nn.Parameter(torch.zeros(action_size))
    critics = nn.ModuleList(network(observation_size + action_size, 1) for _ in range(2))
    targets = copy.deepcopy(critics).requires_grad_(False)
    value_adam = torch.optim.Adam(value.parameters(), lr=3e-4)
    critic_adam = torch.optim.Adam(critics.parameters(), lr=3e-4)
    actor_adam = torch.optim.Adam([*actor.parameters(), log_std], lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(actor_adam, 1_000_000)

    def update() -> list[float]:
        batch = unpack(data[torch.randint(len(data), (batch_size,))], action_size)
        with torch.no_grad():
            target_q = torch.min(*(q(batch.state_actions).squeeze(-1) for q in targets))
            next_v = value(batch.next_observations).squeeze(-1)
        advantage = target_q - value(batch.observations).squeeze(-1)
        expectile = torch.abs(config["expectile"] - (advantage < 0).float())
        value_loss = (expectile * advantage**2).mean()
        value_adam.zero_grad()
        value_loss.backward()
        value_adam.step()

        target = batch.rewards + config["discount"] * batch.masks * next_v
        values = [q(batch.state_actions).squeeze(-1) for q in critics]
        critic_loss = sum((functional.mse_loss(q, target) for q in values), torch.zeros(()))
        critic_adam.zero_grad()
        critic_loss.backward()
        critic_adam.step()
        with torch.no_grad():
            for ours, theirs in zip(targets.parameters(), critics.parameters(), strict=True):
                ours.data.copy_((1 - config["polyak"]) * ours + config["polyak"] * theirs)

        weights = torch.exp(config["inverse_temperature"] * advantage.detach()).clamp(max=100.0)
        policy = torch.distributions.Normal(torch.tanh(actor(batch.observations)), log_std.exp())
        log_prob = policy.log_prob(batch.actions).sum(dim=-1)
        actor_loss = -(weights * log_prob).mean()
        actor_adam.zero_grad()
        actor_loss.backward()
        actor_adam.step()
        schedule.step()
        return [value_loss.item(), critic_loss.item(), actor_loss.item()]

    def several(updates: int) -> None:
        for _ in range(updates):
            update()

    return several


def products_alone(
    sizes: Sequence[Sequence[int]], batch_size: int, dtype: torch.dtype, *, library: bool
) -> Slice:
    """The matrix products of one update and nothing else: what cannot be saved.

    Args:
        sizes: widths of value, actor and critic.
        batch_size: B.
        dtype: of the products.
        library: our products; False takes `torch.mm`, as an autograd loop does.
    """
    value, actor, critic = ([*pairwise(widths)] for widths in sizes)
    # Forward with a way back; V once more on s and s'; the target critics.
    there_and_back = [(value, batch_size), (actor, batch_size), *[(critic, batch_size)] * 2]
    there = [(value, 2 * batch_size), *[(critic, batch_size)] * 2]
    tensors: dict[tuple[int, ...], Tensor] = {}

    def some(*shape: int) -> Tensor:
        if shape not in tensors:
            tensors[shape] = torch.randn(shape).to(dtype)
        return tensors[shape]

    def forward(layers: Sequence[tuple[int, int]], rows: int) -> None:
        for i, o in layers:
            if library:
                affine(some(rows, i), some(i, o), some(1, o), relu=False)
            else:
                torch.mm(some(rows, i), some(i, o))

    def backward(layers: Sequence[tuple[int, int]], rows: int) -> None:
        for n, (i, o) in enumerate(layers):
            x, dy, weight = some(rows, i), some(rows, o), some(i, o)
            if library:
                weight_gradient(x, dy, some(i, o))
            else:
                torch.mm(x.T, dy)
            if n > 0:
                _ = input_gradient(dy, weight) if library else torch.mm(dy, weight.T)

    def several(updates: int) -> None:
        for _ in range(updates):
            for layers, rows in there_and_back:
                forward(layers, rows)
                backward(layers, rows)
            for layers, rows in there:
                forward(layers, rows)

    return several
