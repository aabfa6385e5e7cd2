"""Recorded discrete actions, from another library's file to a bundle that acts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError, DatasetError
from iql_ros.verbs.dataset import dataset_app
from tests.bags import float64, toy_contract, twist, write_bag
from training.conversion.convert import convert
from training.datasets.dataset import load_dataset
from training.datasets.tools import export_dataset, import_dataset
from training.export import export_run
from training.learning.config import load_config
from training.learning.train import train
from training.replay import replay

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "examples" / "cartpole" / "contract.yaml"
EXPERT = ROOT.parent / "shared" / "datasets" / "cartpole_expert_discrete.npz"


def write_npz(path: Path, acts: np.ndarray) -> Path:
    """Two episodes in the layout of the imitation library, the second cut by a limit."""
    steps = len(acts)
    np.savez(
        path,
        obs=np.random.default_rng(0).normal(size=(steps + 2, 4)).astype(np.float32),
        acts=acts,
        rews=np.ones(steps),
        indices=np.array([steps // 2]),
        terminal=np.array([True, False]),
    )
    return path


def test_integer_actions_number_the_contract_s_choices(tmp_path: Path) -> None:
    src = write_npz(tmp_path / "cart.npz", np.array([0, 1, 1, 0, 1, 0]))
    told = import_dataset("imitation", src, tmp_path / "cart.h5", contract=load_contract(CONTRACT))
    dataset = load_dataset(tmp_path / "cart.h5")
    assert dataset.actions[:, 0].tolist() == [-10, 10, 10, -10, 10, -10]
    assert dataset.contract == load_contract(CONTRACT)
    # The reward is constant, but one episode ends for good: there is something to prefer.
    assert told == []


def test_without_a_contract_or_beyond_its_choices_integers_are_refused(tmp_path: Path) -> None:
    src = write_npz(tmp_path / "cart.npz", np.array([0, 1, 1, 0, 2, 2]))
    with pytest.raises(DatasetError, match=r"acts is of type int64, discrete actions: give a cont"):
        import_dataset("imitation", src, tmp_path / "cart.h5")
    with pytest.raises(DatasetError, match=r"acts\[4\] is 2, 2 value\(s\) of its kind: the contr"):
        import_dataset("imitation", src, tmp_path / "cart.h5", contract=load_contract(CONTRACT))


def test_a_contract_of_other_widths_or_beside_another_is_refused(tmp_path: Path) -> None:
    src = write_npz(tmp_path / "cart.npz", np.array([0, 1, 1, 0, 1, 0]))
    ours, folder = tmp_path / "cart.h5", tmp_path / "cart-v0"
    import_dataset("imitation", src, ours, contract=load_contract(CONTRACT))
    export_dataset("minari", ours, folder)
    arm = load_contract("arm6")
    floats = write_npz(tmp_path / "floats.npz", np.zeros((6, 1), np.float32))
    with pytest.raises(
        DatasetError, match="'observations' has 4 columns, its contract 'arm6' decl"
    ):
        import_dataset("imitation", floats, tmp_path / "x.h5", contract=arm)
    with pytest.raises(ContractError, match="made by another contract of robot 'cartpole'"):
        import_dataset("minari", folder, tmp_path / "x.h5", contract=arm)
    import_dataset("minari", folder, tmp_path / "back.h5")
    np.testing.assert_array_equal(
        load_dataset(tmp_path / "back.h5").actions, load_dataset(ours).actions
    )


def test_a_bag_with_gears_goes_the_whole_way(tmp_path: Path) -> None:
    """A slide is driven to the middle in one of three gears; two commands are of no gear."""
    gears = [-1.0, 0.0, 2.5]
    action = {"name": "gear", "topic": "cmd", "path": "linear.x", "choices": gears, "safe": 0}
    contract = toy_contract(
        actions=[action], reward={"expression": "-abs(next_x)"}, episode={"max_steps": 25}
    )
    rng, place, entries = np.random.default_rng(0), 1.0, []
    for k in range(600):
        if k % 25 == 0:
            place = rng.uniform(-3, 3)
        gear = -1.0 if place > 0.3 else 2.5 if place < -0.3 else 0.0
        sent = 1.7 if k in (200, 201) else gear
        entries += [
            ("/state", "std_msgs/msg/Float64", 100 * k, float64(place)),
            ("/cmd", "geometry_msgs/msg/Twist", 100 * k + 50, twist(sent)),
        ]
        place += 0.1 * gear
    bag = write_bag(tmp_path / "bag", entries)

    convert([bag], contract, tmp_path / "slide.h5")
    settings = ["algorithm=bc", "steps=300", "hidden=[32,32]", "learning_rate=3e-3"]
    train(tmp_path / "slide.h5", tmp_path / "run", load_config(None, settings))
    export_run(tmp_path / "run", tmp_path / "bundle")
    replay(tmp_path / "bundle", bag, tmp_path / "replay")

    told = json.loads((tmp_path / "slide.report.json").read_text())
    assert "2 of 599 commands are none of its choices [-1.0, 0.0, 2.5] (1.7)" in json.dumps(told)
    summary = json.loads((tmp_path / "replay" / "replay.json").read_text())
    assert set(summary["statuses"]) == {"ok"}
    assert summary["actions"]["gear"]["correlation"] > 0.9


@pytest.mark.skipif(not EXPERT.exists(), reason=f"{EXPERT} is not there")
def test_the_verb_reports_what_the_expert_s_file_lacks(tmp_path: Path) -> None:
    def call(*more: str) -> str:
        arguments = ["import", "--from", "imitation", str(EXPERT), "--contract", str(CONTRACT)]
        result = CliRunner().invoke(dataset_app, [*arguments, *more])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    suspicion = "15 of the 57 episodes ends with a terminal after exactly 500 steps: if that is a"
    assert suspicion in call("--out", str(tmp_path / "a.h5"))
    assert "15 terminal(s) after 500 steps: now timeouts" in call(
        "--out", str(tmp_path / "b.h5"), "--time-limit", "500"
    )


@pytest.mark.slow
@pytest.mark.skipif(not EXPERT.exists(), reason=f"{EXPERT} is not there")
def test_a_short_training_holds_the_pole_with_pushes_that_are_choices(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    from benchmarks.cartpole import hold, make_bundle

    make_bundle(EXPERT, tmp_path, ["steps=1000", "batch_size=128", "inverse_temperature=3"])
    lengths, statuses = hold(tmp_path / "bundle", 3)
    # Pushes at random last 20 steps.
    assert lengths.min() > 150
    assert set(statuses) == {"OK"}
