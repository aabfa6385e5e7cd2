"""Policies that draw their actions: the noise, and bundles whose graph takes it."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iql_ros.backends.numpy import open_numpy
from iql_ros.backends.onnx import open_onnx
from iql_ros.backends.tensorrt import Options, compile_bundle, open_tensorrt
from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.format import Noise
from iql_ros.bundles.golden import check_policy
from iql_ros.bundles.noise import noise_rows
from iql_ros.errors import BundleError
from iql_ros.policies import open_policy, verify
from tests.small_dataset import point_columns, write_point_dataset
from tests.tensorrt_double import VERSIONS, install_doubles
from tests.unit.test_export_choice import SHORT, SPEEDS, discrete_contract
from training.export import export_run
from training.learning.config import ConfigError, load_config
from training.learning.discrete import CategoricalActor
from training.learning.drawing import SoftmaxDraw
from training.learning.run import load_run
from training.learning.train import train

NOISE = Noise(shape=(1, 5), seed=3)
STATES = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)


# -- the noise ---------------------------------------------------------------------------


def test_noise_is_normal_and_independent() -> None:
    rows = noise_rows(NOISE, STATES).astype(np.float64)
    # Of 20,000 draws a mean is off by 0.007, a variance by 0.01, a correlation by 0.007: 4 of each.
    assert np.abs(rows.mean(axis=0)).max() < 0.03
    assert np.abs(rows.var(axis=0) - 1).max() < 0.04
    others = np.corrcoef(np.hstack([rows, STATES, np.roll(rows, 1, axis=0)]).T) - np.eye(13)
    assert np.abs(others).max() < 0.03
    inside = [(np.abs(rows) < limit).mean() for limit in (0.6745, 1.96)]
    assert inside == pytest.approx([0.5, 0.95], abs=0.005)


def test_noise_is_what_the_format_says_it_is() -> None:
    """Computed again without numpy; a change would make every such bundle fail its golden pairs."""
    observation = np.float32([0.5, -1.0, 2.0])
    data = struct.pack("<Q", 3) + struct.pack("<3f", *observation)
    words = struct.unpack("<6I", hashlib.shake_128(data).digest(24))
    uniform = [(word + 0.5) / 2**32 for word in words]
    pairs = zip(uniform[:3], uniform[3:], strict=True)
    polar = [(math.sqrt(-2 * math.log(u)), 2 * math.pi * v) for u, v in pairs]
    expected = [r * math.cos(a) for r, a in polar] + [r * math.sin(a) for r, a in polar]
    given = noise_rows(NOISE, observation[None])[0]
    np.testing.assert_allclose(given, expected[:5], rtol=1e-6)


def test_another_seed_or_another_bit_of_the_observation_gives_other_noise() -> None:
    row = STATES[:1]
    moved = np.nextafter(row, np.float32(9))
    first = noise_rows(NOISE, row)
    assert np.array_equal(first, noise_rows(NOISE, row))
    assert not np.isclose(first, noise_rows(NOISE, moved)).any()
    assert not np.isclose(first, noise_rows(NOISE.model_copy(update={"seed": 4}), row)).any()


# -- bundles -----------------------------------------------------------------------------


def trained(folder: Path, *settings: str, discrete: bool = False) -> Path:
    columns, contract = point_columns(), None
    if discrete:
        speeds = np.float32(SPEEDS)
        columns["actions"] = speeds[np.abs(columns["actions"][:, :1] - speeds).argmin(axis=1)][
            :, None
        ]
        contract = discrete_contract()
    data = write_point_dataset(folder / "point.h5", columns, contract)
    train(data, folder / "run", load_config(None, [*settings, *SHORT]), progress=lambda *_: None)
    return folder / "run"


KINDS = {
    "gaussian": ([], 2),
    "softmax": ([], 3),
    "best": (["extraction=sampled", "samples=8", "refinements=1"], 8 + 2 * 8 * 2),
    "drawn": (["extraction=sampled", "samples=8", "selection=drawn"], 8 + 8 * 2 + 8),
}


@pytest.fixture(scope="module", params=KINDS)
def run_and_bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp(request.param)
    settings, size = KINDS[request.param]
    run = trained(folder, *settings, discrete=request.param == "softmax")
    bundle = load_bundle(export_run(run, folder / "bundle", stochastic=True))
    assert bundle.manifest.io.noise == Noise(shape=(1, size), seed=0)
    return run, bundle


def actions_of(bundle: Bundle, backend: str, states: NDArray[np.float32]) -> NDArray[np.float32]:
    policy = open_policy(bundle, backend).policy
    return np.stack([policy(state) for state in states])


def test_every_backend_draws_what_the_trainer_draws(run_and_bundle: tuple[Path, Bundle]) -> None:
    _, bundle = run_and_bundle
    for open_backend in (open_onnx, open_numpy):
        assert verify(bundle, open_backend).worst_error < 1e-5


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_the_calls_of_tensorrt_bind_the_noise(
    run_and_bundle: tuple[Path, Bundle],
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, bundle = run_and_bundle
    install_doubles(monkeypatch, version)
    options = Options(cache=tmp_path / "engines")
    assert compile_bundle(bundle, options).verification.worst_error < 1e-5
    policy = open_tensorrt(bundle, options)
    check_policy(policy, bundle.golden, bundle.contract, bundle.digest)
    assert policy.step.launch == "graph"


def test_the_same_observation_gives_the_same_action_to_the_bit(
    run_and_bundle: tuple[Path, Bundle],
) -> None:
    _, bundle = run_and_bundle
    states = STATES[:100]
    first = actions_of(bundle, "onnx", states)
    again = actions_of(bundle, "onnx", states[::-1])[::-1]
    assert np.array_equal(first, again)


def test_a_graph_that_draws_needs_a_bundle_that_says_so(
    run_and_bundle: tuple[Path, Bundle],
) -> None:
    _, bundle = run_and_bundle
    io = bundle.manifest.io.model_copy(update={"noise": None})
    silent = replace(bundle, manifest=bundle.manifest.model_copy(update={"io": io}))
    for open_backend in (open_onnx, open_numpy):
        with pytest.raises(BundleError, match=r"input is \[.*'noise'.*the contract asks for"):
            open_backend(silent)


def test_a_gaussian_draws_with_its_mean_and_spread(tmp_path: Path) -> None:
    run = trained(tmp_path)
    bundle = load_bundle(export_run(run, tmp_path / "bundle", stochastic=True))
    mean_policy = load_run(run).policy
    # About one state: what differs is the noise, not the mean.
    states = np.float32(0.1) + np.float32(1e-6) * STATES[:4000]
    actions = actions_of(bundle, "onnx", states)
    with torch.no_grad():
        mean = mean_policy(torch.from_numpy(states)).numpy()
        std = load_run(run).learner.deployed().log_std.exp().numpy()
    span = 0.5 * (bundle.contract.action_high - bundle.contract.action_low)
    unit = (actions / span).astype(np.float64)
    expected = np.clip(
        (mean / span)[:, :] + std * np.random.default_rng(1).normal(size=unit.shape), -1, 1
    )
    # 4,000 draws: mean to 0.016 of a spread, spread to 0.011; four of each and two samples.
    assert unit.mean(axis=0) == pytest.approx(expected.mean(axis=0), abs=0.1)
    assert unit.std(axis=0) == pytest.approx(expected.std(axis=0), abs=0.06)
    assert len(np.unique(actions[:, 0])) > 100


def test_a_softmax_draws_each_choice_as_often_as_it_is_likely() -> None:
    actor = CategoricalActor(
        3, torch.tensor([-1.0, 0.0, 1.0]), (4,), torch.Generator().manual_seed(0)
    )
    draw = SoftmaxDraw(actor)
    states = torch.full((20_000, 3), 0.7)
    noise = torch.from_numpy(noise_rows(Noise(shape=(1, 3), seed=0), STATES))
    with torch.no_grad():
        drawn = draw(states, noise)[:, 0]
        wanted = actor(states[:1]).softmax(dim=1)[0]
    shares = torch.stack([(drawn == choice).float().mean() for choice in actor.choices])
    # A share of 20,000 has an error of at most 0.0035.
    torch.testing.assert_close(shares, wanted, atol=0.014, rtol=0)


def test_a_deterministic_actor_has_nothing_to_draw(tmp_path: Path) -> None:
    run = trained(tmp_path, "actor=deterministic")
    with pytest.raises(ConfigError, match=r"actor is deterministic: .*without --stochastic"):
        export_run(run, tmp_path / "bundle", stochastic=True)
