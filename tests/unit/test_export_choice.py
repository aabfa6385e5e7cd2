"""Policies that choose, among samples or among the contract's choices, as bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iql_ros.bundle import load_bundle
from iql_ros.bundles.golden import MIN_PAIRS, check_policy
from iql_ros.contract import Contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.controller import Controller
from iql_ros.errors import BundleError, DatasetError
from iql_ros.policies import open_policy
from iql_ros.wire import make_types
from tests.small_dataset import point_columns, point_contract, write_point_dataset
from training.datasets.dataset import load_dataset
from training.export import export_run, steady
from training.learning.config import ConfigError, load_config
from training.learning.run import load_run
from training.learning.train import train

SHORT = ["steps=100", "log_every=50", "evaluate_every=50", "checkpoint_every=50", "hidden=[16,16]"]
SPEEDS = [0.3, -0.5, 0.0]


def discrete_contract() -> Contract:
    """The point's contract, but pushed along x alone, at one of three speeds."""
    content = point_contract().canonical()
    action = {"name": "v", "topic": "push", "path": "x", "choices": SPEEDS, "safe": 0.0}
    return Contract.model_validate({**content, "actions": [action]})


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled")
    data = write_point_dataset(folder / "point.h5")
    settings = ["extraction=sampled", "samples=8", "refinements=1", *SHORT]
    train(data, folder / "run", load_config(None, settings))
    export_run(folder / "run", folder / "bundle", samples=16)
    return folder


@pytest.fixture(scope="module")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discrete")
    columns = point_columns()
    speeds = np.float32(SPEEDS)
    numbers = np.abs(columns["actions"][:, :1] - speeds).argmin(axis=1)
    columns["actions"] = speeds[numbers][:, None]
    data = write_point_dataset(folder / "point.h5", columns, discrete_contract())
    train(data, folder / "run", load_config(None, SHORT))
    export_run(folder / "run", folder / "bundle")
    return folder


def test_a_bundle_of_samples_acts_as_the_trainer_does(sampled: Path) -> None:
    run = load_run(sampled / "run", samples=16)
    policy = open_policy(sampled / "bundle", "onnx").policy
    seen = load_dataset(sampled / "point.h5").observations
    seen = seen[steady(run.policy, seen, point_contract())]
    with torch.no_grad():
        expected = run.policy(torch.tensor(seen)).numpy()

    given = np.stack([policy(row) for row in seen])

    assert len(seen) > 250
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_samples_leave_no_limit_even_far_from_the_data(sampled: Path) -> None:
    policy = open_policy(sampled / "bundle", "onnx").policy
    far = np.float32(100) * np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actions = np.stack([policy(row) for row in far])
    assert (np.abs(actions) <= 0.5).all()


def test_the_number_of_samples_at_export_changes_the_policy_and_nothing_else(sampled: Path) -> None:
    more, fewer = (load_run(sampled / "run", samples=n).policy for n in (16, 4))
    seen = torch.tensor(load_dataset(sampled / "point.h5").observations)
    with torch.no_grad():
        assert not torch.equal(more(seen), fewer(seen))
    ours = load_run(sampled / "run")
    assert ours.config.samples == 8
    assert load_bundle(sampled / "bundle").manifest.metrics == ours.metrics


def test_a_run_without_samples_has_no_number_of_them(discrete: Path) -> None:
    with pytest.raises(ConfigError, match="samples 4 are asked for, but the run has extraction"):
        export_run(discrete / "run", discrete / "other", samples=4)


def test_a_discrete_bundle_gives_choices_and_its_controller_publishes_them(discrete: Path) -> None:
    bundle = load_bundle(discrete / "bundle")
    policy = open_policy(bundle, "onnx").policy
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, size=(100, 3)).astype(np.float32)
    actions = np.stack([policy(row) for row in seen])
    numbers, is_choice = nearest_choice(actions, np.array(SPEEDS))
    assert is_choice.all()
    assert len(np.unique(numbers)) > 1
    assert Controller(bundle.contract, policy, make_types({})).contract.choices is not None


def test_a_backend_that_rounds_a_choice_away_fails_verification(discrete: Path) -> None:
    bundle = load_bundle(discrete / "bundle")
    policy = open_policy(bundle, "onnx").policy

    def coarse(observation: np.ndarray) -> np.ndarray:
        return policy(observation) + np.float32(2e-5)

    with pytest.raises(
        BundleError, match=r"golden pair 0 is .*, the contract's choices are \[0.3,"
    ):
        check_policy(coarse, bundle.golden, bundle.contract, bundle.digest)


def test_golden_pairs_lie_where_the_choice_is_clear(discrete: Path) -> None:
    bundle, run = load_bundle(discrete / "bundle"), load_run(discrete / "run")
    assert len(bundle.golden.observations) >= MIN_PAIRS
    assert steady(run.policy, bundle.golden.observations, bundle.contract).all()
    # Between two states with different choices there is one at which the policy wavers.
    seen = np.random.default_rng(0).uniform(-1, 1, size=(100, 3)).astype(np.float32)
    with torch.no_grad():
        actions = run.policy(torch.tensor(seen)).numpy()[:, 0]
    a, b = seen[actions == actions.min()][0], seen[actions == actions.max()][0]
    for _ in range(40):
        middle = (a + b) / 2
        with torch.no_grad():
            same = run.policy(torch.from_numpy(middle[None])).item() == actions.min()
        a, b = (middle, b) if same else (a, middle)
    edge = np.repeat(a[None], 2, axis=0)
    assert not steady(run.policy, np.vstack([edge, seen]), bundle.contract)[:2].any()


def test_an_action_that_is_no_choice_is_refused_with_its_row(tmp_path: Path) -> None:
    columns = point_columns()
    columns["actions"] = np.zeros_like(columns["actions"][:, :1])
    columns["actions"][17] = 0.1
    path = write_point_dataset(tmp_path / "bad.h5", columns, discrete_contract())
    message = r"bad.h5: action 'v' is 0.1.* in row 17, 1 value\(s\) of its kind: the contract"
    with pytest.raises(DatasetError, match=message):
        load_dataset(path)
