"""The gradients of an update against backpropagation written out by hand in numpy, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.learning.batch import Batch, unpack
from training.learning.config import TrainConfig
from training.learning.iql import Iql

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]  # kernel (in, out) and bias (out,)

# Both sides are float64 and sum the same few hundred terms in another order.
TOLERANCE = 1e-9


def some_batch(rows: int = 32) -> Batch:
    rng = np.random.default_rng(0)
    packed = rng.normal(size=(rows, 3 + 2 + 3 + 2))
    packed[:, 3:5] = np.tanh(packed[:, 3:5])
    packed[:, -1] = rng.random(rows) < 0.8
    return unpack(torch.from_numpy(packed), action_size=2)


def some_iql(**changes: object) -> Iql:
    config = TrainConfig.model_validate({"hidden": (16, 8), "expectile": 0.8, **changes})
    iql = Iql(config, 3, 2, torch.Generator().manual_seed(0)).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases and std away from 0, so that the tests see them
        for parameter in iql.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, dtype=torch.float64, generator=rng)
                parameter.add_(0.1 * noise)
    return iql


def layers_of(net: torch.nn.Module) -> Layers:
    return [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in net.layers
        if isinstance(layer, torch.nn.Linear)
    ]


def critic_layers(net: torch.nn.Module, c: int) -> Layers:
    pairs = zip(net.weights, net.biases, strict=True)
    return [(w[c].detach().numpy().copy(), b[c, 0].detach().numpy().copy()) for w, b in pairs]


def inputs_and_output(x: Array, layers: Layers) -> tuple[list[Array], Array]:
    inputs = []
    for weight, bias in layers[:-1]:
        inputs.append(x)
        x = np.maximum(x @ weight + bias, 0.0)
    return [*inputs, x], x @ layers[-1][0] + layers[-1][1]


def gradients(inputs: list[Array], layers: Layers, by_output: Array) -> Layers:
    """Backpropagates dL/d output (B, out) to every kernel and bias."""
    found = []
    by = by_output
    for x, (weight, _) in zip(reversed(inputs), reversed(layers), strict=True):
        found.append((x.T @ by, by.sum(axis=0)))
        by = (by @ weight.T) * (x > 0)
    return found[::-1]


def assert_equal_gradients(net: torch.nn.Module, expected: Layers) -> None:
    linear = [layer for layer in net.layers if isinstance(layer, torch.nn.Linear)]
    for layer, (kernel, bias) in zip(linear, expected, strict=True):
        np.testing.assert_allclose(layer.weight.grad.numpy().T, kernel, TOLERANCE, 1e-12)
        np.testing.assert_allclose(layer.bias.grad.numpy(), bias, TOLERANCE, 1e-12)


def test_the_value_function_descends_its_gradient() -> None:
    iql, batch = some_iql(), some_batch()
    layers = layers_of(iql.value)
    inputs, v = inputs_and_output(batch.observations.numpy(), layers)
    u = smaller_target(iql, batch) - v[:, 0]
    by_v = -2.0 * np.where(u > 0, 0.8, 0.2) * u / len(u)

    iql.update(batch, step=0)

    assert_equal_gradients(iql.value, gradients(inputs, layers, by_v[:, None]))


def test_the_critics_descend_their_gradients() -> None:
    iql, batch = some_iql(), some_batch()
    before = [critic_layers(iql.critic, c) for c in (0, 1)]

    iql.update(batch, step=0)

    next_v = inputs_and_output(batch.next_observations.numpy(), layers_of(iql.value))[1][:, 0]
    backup = batch.rewards.numpy() + 0.99 * batch.masks.numpy() * next_v
    for c, layers in enumerate(before):
        inputs, q = inputs_and_output(batch.state_actions.numpy(), layers)
        by_q = -2.0 * (backup - q[:, 0]) / len(backup)
        expected = gradients(inputs, layers, by_q[:, None])
        for weight, bias, (kernel, offset) in zip(
            iql.critic.weights, iql.critic.biases, expected, strict=True
        ):
            np.testing.assert_allclose(weight.grad[c].numpy(), kernel, TOLERANCE, 1e-12)
            np.testing.assert_allclose(bias.grad[c, 0].numpy(), offset, TOLERANCE, 1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "deterministic", "unsquashed"])
def test_every_kind_of_actor_descends_its_gradient(kind: str) -> None:
    iql, batch = some_iql(actor=kind), some_batch()
    layers, log_std = layers_of(iql.actor), iql.actor.log_std.detach().numpy().copy()
    inputs, raw = inputs_and_output(batch.observations.numpy(), layers)
    target = smaller_target(iql, batch)

    iql.update(batch, step=0)

    v = inputs_and_output(batch.observations.numpy(), layers_of(iql.value))[1][:, 0]
    weights = np.minimum(np.exp(3.0 * (target - v)), 100.0)[:, None]
    mean = raw if kind == "unsquashed" else np.tanh(raw)
    slope = 1.0 if kind == "unsquashed" else 1.0 - mean**2
    deviation = (batch.actions.numpy() - mean) / np.exp(log_std)
    by_mean = -weights * deviation / np.exp(log_std) / len(weights)
    by_log_std = (weights * (1.0 - deviation**2)).mean(axis=0)

    assert_equal_gradients(iql.actor, gradients(inputs, layers, by_mean * slope))
    if kind == "deterministic":
        assert iql.actor.log_std.grad is None
        assert log_std.tolist() == [0.0, 0.0]
    else:
        np.testing.assert_allclose(iql.actor.log_std.grad.numpy(), by_log_std, TOLERANCE)


def smaller_target(iql: Iql, batch: Batch) -> Array:
    pairs = batch.state_actions.numpy()
    q = [inputs_and_output(pairs, critic_layers(iql.target_critic, c))[1] for c in (0, 1)]
    return np.minimum(*q)[:, 0]
