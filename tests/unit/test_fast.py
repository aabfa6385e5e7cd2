from __future__ import annotations

import numpy as np
import pytest
import torch

from training.learning.batch import unpack
from training.learning.captured import CapturedUpdates
from training.learning.config import ConfigError, TrainConfig
from training.learning.fast import FastIql
from training.learning.iql import Iql
from training.learning.learner import create_learner, run_block, training_device

OBSERVATIONS, ACTIONS = 5, 3
CONFIG = TrainConfig(hidden=(16, 8), steps=40, batch_size=32, log_every=10, evaluate_every=10)

# float64 on both sides; the order of the sums differs, and with it a few of the last digits.
TOLERANCE = 1e-9


def iql(config: TrainConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Iql:
    """An untrained learner whose biases and deviations stand away from 0."""
    learner = Iql(config, OBSERVATIONS, ACTIONS, torch.Generator().manual_seed(seed)).to(dtype)
    rng = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=rng))
        if not learner.actor.log_std.requires_grad:
            learner.actor.log_std.zero_()
    return learner


def transitions(rows: int = 500, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    packed = rng.normal(size=(rows, 2 * OBSERVATIONS + ACTIONS + 2))
    packed[:, OBSERVATIONS : -OBSERVATIONS - 2] = np.tanh(
        packed[:, OBSERVATIONS : -OBSERVATIONS - 2]
    )
    packed[:, -1] = rng.random(rows) < 0.8
    return torch.from_numpy(packed)


def draws(updates: int, *members: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(500, size=(updates, *members, CONFIG.batch_size)))


def assert_equal_weights(ours: FastIql | Iql, theirs: Iql, rtol: float = TOLERANCE) -> None:
    mine = ours.state_dict()
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine[name], value, rtol=rtol, atol=1e-3 * rtol, err_msg=name)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("log_std", [-6.0, -5.0, 0.3, 2.0, 2.5])
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": (7,)},
        {"hidden": (16, 8), "actor": "deterministic"},
        {"hidden": (4, 9, 6), "actor": "unsquashed", "expectile": 0.95},
        # The largest weight of half the rows is the cap.
        {"hidden": (12, 12), "inverse_temperature": 30.0, "advantage_weight_max": 2.0},
    ],
)
def test_gradients_are_autograd_s(changes: dict[str, object], log_std: float, apart: bool) -> None:
    config = CONFIG.model_copy(update=changes)
    readable, member = iql(config), iql(config)
    for one in (readable, member):
        if one.actor.log_std.requires_grad:
            with torch.no_grad():
                one.actor.log_std.copy_(torch.tensor([log_std, 0.0, -1.0]))
    fast = FastIql([member], apart=apart)
    batch = unpack(transitions()[draws(1)[0]], ACTIONS)

    losses, expected = fast.update(batch, 0), readable.update(batch, 0)

    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    for name in ("value", "actor", "critic"):
        stack = getattr(fast, name)
        theirs = getattr(readable, name).parameters()
        for ours, parameter in zip(getattr(member, name).parameters(), theirs, strict=True):
            if parameter.grad is not None:
                gradient = at_the_place_of(ours, stack.flat.grad)
                np.testing.assert_allclose(gradient, parameter.grad, rtol=TOLERANCE, atol=1e-14)


def at_the_place_of(parameter: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    return flat.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"actor": "deterministic"},
        {"value_warm_up": 13},
        {"expectile_schedule": "annealed"},
        {"expectile_schedule": "policy_value"},
    ],
)
def test_a_run_is_the_readable_one(changes: dict[str, object]) -> None:
    config = CONFIG.model_copy(update=changes)
    readable, fast = iql(config), FastIql([iql(config)])
    held_out = unpack(transitions(100, seed=1), ACTIONS)

    for first_step in range(0, 40, 10):
        rows = draws(10, seed=first_step)
        ours = run_block(fast, transitions(), rows, first_step)
        theirs = run_block(readable, transitions(), rows, first_step)
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)
        judged = readable.evaluate(held_out)
        assert fast.evaluate(held_out) == pytest.approx(judged, rel=TOLERANCE)
        readable.adapt(judged)
        fast.adapt(judged)

    assert_equal_weights(fast, readable)


@pytest.mark.parametrize("apart", [True, False])
def test_members_trained_together_end_as_each_does_alone(apart: bool) -> None:
    together = FastIql([iql(CONFIG, seed=seed) for seed in (0, 5, 9)], apart=apart)
    rows = draws(10, 3)

    losses = run_block(together, transitions(), rows, 0)

    for i, seed in enumerate((0, 5, 9)):
        alone = iql(CONFIG, seed=seed)
        theirs = run_block(alone, transitions(), rows[:, i], 0)
        np.testing.assert_allclose(losses[:, i], theirs, rtol=TOLERANCE)
        assert_equal_weights(together.members[i], alone)


@pytest.mark.parametrize(
    ("members", "changes"),
    [
        ((), {"value_warm_up": 13}),
        ((), {"expectile_schedule": "policy_value"}),
        ((2,), {"expectile_schedule": "annealed"}),
    ],
)
def test_blocks_without_numbers_from_python_are_the_same_run(
    members: tuple[int, ...], changes: dict[str, object]
) -> None:
    config = CONFIG.model_copy(update=changes)
    seeds = range(members[0] if members else 1)
    plain = FastIql([iql(config, seed=seed) for seed in seeds])
    captured = FastIql([iql(config, seed=seed) for seed in seeds])
    updates = CapturedUpdates(captured)
    data = transitions()

    for first_step, count in ((0, 10), (10, 10), (20, 4)):
        rows = draws(count, *members, seed=first_step)
        ours, theirs = updates.run(data, rows, first_step), run_block(plain, data, rows, first_step)
        # The learning rate passes through float32.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    for one, other in zip(captured.members, plain.members, strict=True):
        assert_equal_weights(one, other, rtol=1e-5)


def test_float32_on_the_cpu_s_own_kernels_stays_near_float64() -> None:
    fast, exact = FastIql([iql(CONFIG, dtype=torch.float32)]), iql(CONFIG)

    ours = run_block(fast, transitions().float(), draws(10), 0)
    theirs = run_block(exact, transitions(), draws(10), 0)

    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_bfloat16_products_learn_as_float32_ones_do() -> None:
    halves = CONFIG.model_copy(update={"precision": "bfloat16"})
    rough = FastIql([iql(halves, dtype=torch.float32)])
    fine = FastIql([iql(CONFIG, dtype=torch.float32)])

    ours = run_block(rough, transitions().float(), draws(40), 0)
    theirs = run_block(fine, transitions().float(), draws(40), 0)

    # bfloat16 keeps 8 bits: 0.4 % each product.
    np.testing.assert_allclose(ours.mean(dim=0), theirs.mean(dim=0), rtol=0.03)
    assert not torch.equal(ours, theirs)
    assert {value.dtype for value in rough.state_dict().values()} == {torch.float32}


def test_weights_pass_between_the_two_updates() -> None:
    readable, fast = iql(CONFIG, seed=1), FastIql([iql(CONFIG, seed=2)])
    fast.load_state_dict(readable.state_dict())

    run_block(fast, transitions(), draws(5), 0)
    run_block(readable, transitions(), draws(5), 0)

    assert_equal_weights(fast, readable)


@pytest.mark.parametrize(
    ("changes", "fast"),
    [
        ({}, True),
        ({"actor": "deterministic", "value_warm_up": 10}, True),
        ({"dropout": 0.1}, False),
        ({"layer_norm": "critic"}, False),
        ({"algorithm": "bc"}, False),
    ],
)
def test_what_the_fast_update_cannot_do_goes_the_readable_way(
    changes: dict[str, object], fast: bool
) -> None:
    config = CONFIG.model_copy(update=changes)

    assert isinstance(create_learner(config, OBSERVATIONS, ACTIONS), FastIql) is fast
    assert training_device(config.model_copy(update={"device": "cpu"})).type == "cpu"
    if not fast:
        with pytest.raises(ConfigError, match=r"precision 'bfloat16' needs the fast update, which"):
            training_device(config.model_copy(update={"precision": "bfloat16"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda': torch sees no NVIDIA GPU here"):
        training_device(CONFIG.model_copy(update={"device": "cuda"}))
