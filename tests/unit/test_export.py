from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from iql_ros.bundle import load_bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.errors import DatasetError
from iql_ros.policies import open_policy
from tests.small_bundle import CONTRACT, write_bundle
from training.datasets.dataset import Dataset, load_dataset
from training.datasets.file import COLUMNS, write_dataset
from training.export import export_graph, export_run, golden_observations, golden_pairs
from training.learning.config import TrainConfig
from training.learning.networks import Actor, DeployedPolicy
from training.learning.preparing import split_run
from training.learning.run import load_run
from training.learning.train import train
from training.support import conformal_threshold, fit_support, mahalanobis


@pytest.fixture(scope="module")
def policy() -> DeployedPolicy:
    actor = Actor(4, 2, (64, 64), torch.Generator().manual_seed(0), learn_std=True)
    return DeployedPolicy(
        actor,
        mean=[0.5, -1.0, 2.0, 0.0],
        std=[0.1, 2.0, 1.0, 3.0],
        low=CONTRACT.action_low,
        high=CONTRACT.action_high,
    )


@pytest.fixture(scope="module")
def graph(policy: DeployedPolicy) -> bytes:
    return export_graph(policy, CONTRACT)


def episodes(count: int, seed: int, steps: int = 50) -> Dataset:
    """Episodes of standard normal observations, the last component constant at 5."""
    rng = np.random.default_rng(seed)
    rows = count * steps
    observations = rng.normal(size=(rows, 4)).astype(np.float32)
    observations[:, 3] = 5.0
    return Dataset(
        observations=observations,
        actions=np.zeros((rows, 2), np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=np.arange(rows) % steps == steps - 1,
        next_observations=observations.copy(),
        action_low=CONTRACT.action_low.copy(),
        action_high=CONTRACT.action_high.copy(),
        contract=CONTRACT,
    )


# -- the graph -------------------------------------------------------------------------------


def test_graph_has_the_fixed_opset_and_names_its_contract(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {p.key: p.value for p in model.metadata_props} == graph_metadata(CONTRACT)


def test_graph_holds_no_path_of_the_machine_that_exported_it(graph: bytes) -> None:
    assert b".py" not in graph
    assert b"stack_trace" not in graph


def test_exporting_twice_gives_the_same_bytes(policy: DeployedPolicy, graph: bytes) -> None:
    assert export_graph(policy, CONTRACT) == graph


def test_exporting_prints_nothing(
    policy: DeployedPolicy, capfd: pytest.CaptureFixture[str]
) -> None:
    export_graph(policy, CONTRACT)
    assert capfd.readouterr() == ("", "")


def test_exported_policy_becomes_a_verified_bundle(
    policy: DeployedPolicy, graph: bytes, tmp_path: Path
) -> None:
    states = episodes(4, seed=0).observations
    golden = golden_pairs(policy, golden_observations(CONTRACT, states))
    bundle = write_bundle(tmp_path / "bundle", policy=graph, golden=golden)
    assert bundle.contract.digest() == CONTRACT.digest()


# -- a run -----------------------------------------------------------------------------------


def write_episodes(path: Path, seed: int) -> Path:
    data = episodes(20, seed)
    columns = {name: getattr(data, name) for name in COLUMNS}
    write_dataset(
        path,
        columns,
        infos={},
        attributes={
            "format": 1,
            "contract": CONTRACT.canonical_json(),
            "contract_digest": CONTRACT.digest(),
        },
    )
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(
        algorithm="bc",
        steps=20,
        hidden=(16, 16),
        log_every=10,
        evaluate_every=10,
        checkpoint_every=10,
        held_out_fraction=0.5,
    )
    train(
        write_episodes(folder / "data.h5", seed=0), folder / "a", config, progress=lambda *_: None
    )
    return folder / "a"


def test_run_becomes_a_bundle_that_acts_as_the_run(run_dir: Path, tmp_path: Path) -> None:
    bundle = load_bundle(export_run(run_dir, tmp_path / "bundle"))
    run = load_run(run_dir)
    observation = np.array([0.3, -0.2, 0.1, 5.0], np.float32)
    with torch.no_grad():
        action = run.policy(torch.from_numpy(observation)[None])[0].numpy()
    assert open_policy(bundle).policy(observation) == pytest.approx(action, abs=1e-6)
    assert bundle.manifest.provenance.run == "a"
    assert bundle.manifest.provenance.steps == 20
    assert bundle.manifest.provenance.dataset_digest == run.dataset_digest
    assert bundle.manifest.metrics == run.metrics


def test_golden_states_and_threshold_come_from_held_out_episodes(
    run_dir: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(export_run(run_dir, tmp_path / "bundle"))
    run = load_run(run_dir)
    _, held_out = split_run(load_dataset(Path(run.dataset_path)), run.config)
    assert held_out is not None
    unseen = {tuple(row) for row in held_out.observations.tolist()}
    assert {tuple(row) for row in bundle.golden.observations[11:].tolist()} <= unseen
    assert bundle.manifest.support is not None
    assert bundle.manifest.support.episodes == 10


def test_other_dataset_than_the_runs_is_refused(run_dir: Path, tmp_path: Path) -> None:
    other = write_episodes(tmp_path / "other.h5", seed=1)
    with pytest.raises(DatasetError, match=r"other.h5 has digest .* was trained on"):
        export_run(run_dir, tmp_path / "bundle", dataset=other)


def test_missing_dataset_is_named_with_the_remedy(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone.h5 .*does not exist: give its new place"):
        export_run(run_dir, tmp_path / "bundle", dataset=tmp_path / "gone.h5")


# -- golden observations -----------------------------------------------------------------------


def test_golden_observations_hold_origin_limits_and_states() -> None:
    states = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    golden = golden_observations(CONTRACT, states)
    rows = {tuple(row) for row in golden.tolist()}
    assert golden.shape == (256, 4)
    assert golden.dtype == np.float32
    assert (0.0, 0.0, 0.0, 0.0) in rows
    # position has limits, speed has none: its ends are those seen.
    assert (-5.0, -5.0, -5.0, float(states[:, 3].min())) in rows
    assert (5.0, 5.0, 5.0, float(states[:, 3].max())) in rows
    assert len(rows & {tuple(row) for row in states.tolist()}) == 256 - 11


def test_few_states_still_give_enough_pairs() -> None:
    assert len(golden_observations(CONTRACT, np.ones((3, 4), np.float32))) == 256


# -- support ---------------------------------------------------------------------------------


def test_distance_of_uncorrelated_data_counts_standard_deviations() -> None:
    support = fit_support(episodes(200, seed=1), episodes(40, seed=2))
    distance = mahalanobis(
        np.array([[3.0, 0, 0, 5], [0, 0, 0, 5]]),
        np.array(support.mean),
        np.array(support.precision),
    )
    # 10,000 samples give mean and spread to about 1 %.
    assert distance == pytest.approx([3.0, 0.0], abs=0.06)


def test_component_that_never_varied_is_named_and_any_other_value_is_far() -> None:
    support = fit_support(episodes(200, seed=1), episodes(40, seed=2))
    moved = np.array([[0.0, 0, 0, 6.0]])
    distance = mahalanobis(moved, np.array(support.mean), np.array(support.precision))
    assert support.constant == ("speed",)
    assert distance[0] > support.threshold


def test_share_of_false_alarms_per_episode_is_what_was_promised() -> None:
    support = fit_support(episodes(100, seed=1), episodes(199, seed=2), alpha=0.05)
    fresh = episodes(1000, seed=3)
    distances = mahalanobis(fresh.observations, np.array(support.mean), np.array(support.precision))
    alarms = np.maximum.reduceat(distances, fresh.episodes[0]) > support.threshold
    # Given 199 episodes the true rate spreads by 0.015 around 0.05, its estimate by 0.007.
    assert 0.01 < alarms.mean() < 0.10
    assert support.false_alarm_bound == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("count", "rank", "bound"), [(19, 19, 0.05), (39, 38, 0.05), (5, 5, 1 / 6), (1, 1, 0.5)]
)
def test_threshold_is_the_conformal_rank(count: int, rank: int, bound: float) -> None:
    scores: NDArray[np.float64] = np.random.default_rng(0).permutation(count) + 1.0
    assert conformal_threshold(scores, 0.05) == (rank, pytest.approx(bound))


def test_dependent_components_give_a_finite_support() -> None:
    training, held_out = episodes(20, seed=1), episodes(20, seed=2)
    for data in (training, held_out):
        data.observations.setflags(write=True)
        data.observations[:, 2] = data.observations[:, 0] - data.observations[:, 1]
    support = fit_support(training, held_out)
    assert np.isfinite(support.precision).all()
