"""Our IQL against fifty updates of the official implementation, in float64."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.learning.batch import Batch
from training.learning.config import TrainConfig
from training.learning.fast import FastIql
from training.learning.iql import Iql

TRACE = Path(__file__).parents[3] / "shared" / "golden" / "iql_reference_trace.npz"
pytestmark = pytest.mark.skipif(not TRACE.exists(), reason=f"no reference trace at {TRACE}")

# Both sides are float64; fifty updates leave only rounding, some 1e-13 of the value.
TOLERANCE = 1e-9

Arrays = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def trace() -> Arrays:
    with np.load(TRACE) as file:
        return dict(file)


def iql(trace: Arrays) -> Iql:
    config = TrainConfig(hidden=(32, 32), batch_size=64, steps=1000)
    learner = Iql(config, 5, 2, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for ours, theirs in weights(learner, trace, "initial"):
            ours.copy_(torch.from_numpy(theirs))
    return learner


@pytest.fixture(params=["readable", "fast", "fast, stacked products"])
def learner(trace: Arrays, request: pytest.FixtureRequest) -> Iql | FastIql:
    readable = iql(trace)
    if request.param == "readable":
        return readable
    return FastIql([readable], apart=request.param == "fast")


def weights(
    learner: Iql, trace: Arrays, when: str
) -> Iterator[tuple[torch.Tensor, NDArray[np.float64]]]:
    """Yields each of our weights beside the reference's, oriented alike."""
    for net, output in (("actor", "Dense_0"), ("value", "MLP_0/Dense_2")):
        names = ["MLP_0/Dense_0", "MLP_0/Dense_1", output]
        layers = getattr(learner, net).layers
        for i, name in zip((0, 2, 4), names, strict=True):  # ReLUs stand between
            yield layers[i].weight, trace[f"{when}/{net}/{name}/kernel"].T
            yield layers[i].bias, trace[f"{when}/{net}/{name}/bias"]
    yield learner.actor.log_std, trace[f"{when}/actor/log_stds"]
    for net, ours in (("critic", learner.critic), ("target_critic", learner.target_critic)):
        for i in range(3):
            pair = [f"{when}/{net}/Critic_{c}/MLP_0/Dense_{i}" for c in (0, 1)]
            yield ours.weights[i], np.stack([trace[f"{name}/kernel"] for name in pair])
            yield ours.biases[i], np.stack([trace[f"{name}/bias"][None] for name in pair])


def reference_batch(trace: Arrays, i: int) -> Batch:
    def column(name: str) -> torch.Tensor:
        return torch.from_numpy(trace[f"batch/{name}"][i])

    observations, actions = column("observations"), column("actions")
    return Batch(
        observations=observations,
        actions=actions,
        state_actions=torch.cat([observations, actions], dim=1),
        next_observations=column("next_observations"),
        rewards=column("rewards"),
        masks=column("masks"),
    )


def test_losses_of_fifty_updates_are_the_reference_s(learner: Iql | FastIql, trace: Arrays) -> None:
    ours = np.array([learner.update(reference_batch(trace, i), i).numpy() for i in range(50)])

    for column, name in enumerate(Iql.loss_names):
        np.testing.assert_allclose(
            ours[:, column], trace[f"trace/{name}"], rtol=TOLERANCE, err_msg=name
        )


@pytest.mark.parametrize("updates", [1, 50])
def test_weights_are_the_reference_s(learner: Iql | FastIql, trace: Arrays, updates: int) -> None:
    for i in range(updates):
        learner.update(reference_batch(trace, i), i)

    networks = learner if isinstance(learner, Iql) else learner.members[0]
    for ours, theirs in weights(networks, trace, f"after_{updates}"):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=TOLERANCE, atol=1e-15)
