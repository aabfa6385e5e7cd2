"""From recorded bags to a bundle in closed loop, with the verbs a user types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iql_ros.bundle import load_bundle
from iql_ros.controller import Controller
from iql_ros.policies import open_policy
from iql_ros.wire import make_types
from sim.loop import run_episodes
from sim.world import load_world
from training.datasets.dataset import load_dataset

ROOT = Path(__file__).parents[2]


def iql_ros(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "iql_ros.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, dataset, run and bundle of a short training."""
    folder = tmp_path_factory.mktemp("path")
    iql_ros("record", "--episodes", "20", "--out", "logs", cwd=folder)
    iql_ros("convert", "logs", "--contract", "arm6", "--out", "arm.h5", cwd=folder)
    iql_ros("train", "arm.h5", "--out", "run", "--steps", "200", cwd=folder)
    iql_ros("export", "run", "--out", "bundle", cwd=folder)
    return folder


def test_the_dataset_has_the_rewards_and_ends_that_the_simulator_counted(folder: Path) -> None:
    counted = json.loads((folder / "logs" / "summary.json").read_text())["episodes"]
    dataset = load_dataset(folder / "arm.h5")
    starts, ends = dataset.episodes
    assert [int(end - start) for start, end in zip(starts, ends, strict=True)] == [
        episode["steps"] for episode in counted
    ]
    assert [bool(dataset.terminals[end - 1]) for end in ends] == [
        episode["success"] for episode in counted
    ]
    returns = [dataset.rewards[a:b].sum() for a, b in zip(starts, ends, strict=True)]
    # rewards are stored in single precision
    np.testing.assert_allclose(returns, [e["total_reward"] for e in counted], atol=1e-2)


def test_the_bundle_moves_the_arm_in_lockstep(folder: Path) -> None:
    bundle = load_bundle(folder / "bundle")
    policy, support = open_policy(bundle).policy, bundle.manifest.support
    controller = Controller(bundle.contract, policy, make_types({}), support=support)
    results = run_episodes(load_world("arm6", 3), controller, range(2))
    assert all(result.steps > 0 and np.isfinite(result.total_reward) for result in results)


def test_a_replay_compares_policy_and_record(folder: Path) -> None:
    log = next(path for path in sorted((folder / "logs").iterdir()) if path.is_dir())
    iql_ros("replay", "bundle", str(log), "--out", "replay", cwd=folder)
    summary = json.loads((folder / "replay" / "replay.json").read_text())
    assert summary["ticks"] > 100
    assert set(summary["statuses"]) <= {"ok", "limited", "slewed", "outside"}
    assert len(summary["actions"]) == 6
    assert (folder / "replay" / "replay.png").read_bytes()[:4] == b"\x89PNG"


def test_a_bundle_of_another_contract_does_not_replay_the_log(folder: Path) -> None:
    other = folder / "other.mcap"
    other.write_bytes(b"no bag")
    text = iql_ros("replay", "bundle", str(other), "--out", "no", cwd=folder, code=1)
    assert "other.mcap" in text
    assert not (folder / "no").exists()


def test_outputs_that_exist_are_refused_by_every_verb(folder: Path) -> None:
    for verb in (
        ["convert", "logs", "--contract", "arm6", "--out", "arm.h5"],
        ["train", "arm.h5", "--out", "run", "--steps", "200"],
        ["export", "run", "--out", "bundle"],
    ):
        assert "--force" in iql_ros(*verb, cwd=folder, code=1)


def test_a_run_does_not_go_on_with_a_dataset_of_another_contract(
    folder: Path, tmp_path: Path
) -> None:
    text = (ROOT / "iql_ros" / "robots" / "arm6.yaml").read_text()
    changed = tmp_path / "arm6.yaml"
    changed.write_text(text.replace("slew: 12.0", "slew: 6.0"))
    assert changed.read_text() != text
    iql_ros("convert", "logs", "-c", str(changed), "--out", str(tmp_path / "b.h5"), cwd=folder)
    message = iql_ros(
        "train", str(tmp_path / "b.h5"), "--out", "run", "--resume", cwd=folder, code=1
    )
    assert "slew" in message
    for verb in (
        ["train", "arm.h5", "--out", "other"],
        ["verify", "bundle"],
    ):
        message = iql_ros(*verb, "--contract", str(changed), cwd=folder, code=1)
        assert "first difference" in message
        assert "actions[command].slew[0]: 6.0 against 12.0" in message


def test_verify_says_what_it_proved_and_refuses_a_changed_byte(
    folder: Path, tmp_path: Path
) -> None:
    assert "runs as trained on onnx (it was asked for): 256 golden pairs" in iql_ros(
        "verify", "bundle", cwd=folder
    )
    altered = tmp_path / "altered"
    altered.mkdir()
    for file in (folder / "bundle").iterdir():
        (altered / file.name).write_bytes(file.read_bytes())
    data = bytearray((altered / "golden.npz").read_bytes())
    data[700] ^= 1
    (altered / "golden.npz").write_bytes(data)
    assert "golden.npz" in iql_ros("verify", str(altered), cwd=folder, code=1)


def test_help_has_an_example_for_every_verb(tmp_path: Path) -> None:
    verbs = (
        "check",
        "convert",
        "demo",
        "export",
        "record",
        "replay",
        "run",
        "schema",
        "train",
        "verify",
    )
    listed = iql_ros("--help", cwd=tmp_path)
    for verb in verbs:
        assert verb in listed
        assert f"iql-ros {verb}" in iql_ros(verb, "--help", cwd=tmp_path)


def test_the_schema_describes_the_contract(tmp_path: Path) -> None:
    schema = json.loads(iql_ros("schema", cwd=tmp_path))
    assert schema["additionalProperties"] is False
    assert {"tick", "topics", "observations", "actions", "reward"} <= set(schema["required"])


def test_check_prints_every_component(tmp_path: Path) -> None:
    text = iql_ros("check", "arm6", cwd=tmp_path)
    assert "q_shoulder_pan" in text
    assert "command_5" in text


REAL_LOGS = ROOT.parent / "shared" / "real_logs"


@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason=f"no real logs at {REAL_LOGS}")
def test_real_logs_of_both_generations_of_ros_go_the_whole_way(tmp_path: Path) -> None:
    logs = [str(REAL_LOGS / name) for name in ("turtlesim_db3", "turtlesim_rosbagjs")]
    contract = str(ROOT / "examples" / "turtlesim" / "contract.yaml")
    iql_ros("convert", *logs, "--contract", contract, "--out", "turtle.h5", cwd=tmp_path)
    iql_ros("train", "turtle.h5", "--out", "run", "--steps", "200", cwd=tmp_path)
    iql_ros("export", "run", "--out", "bundle", cwd=tmp_path)
    for i, log in enumerate(logs):
        iql_ros("replay", "bundle", log, "--out", f"replay{i}", cwd=tmp_path)
        summary = json.loads((tmp_path / f"replay{i}" / "replay.json").read_text())
        assert set(summary["actions"]) == {"forward", "turning"}
        assert summary["statuses"]["ok"] > 100
        assert (tmp_path / f"replay{i}" / "replay.png").stat().st_size > 10_000


@pytest.mark.ros
def test_simulator_and_controller_meet_over_ros_in_their_namespace(folder: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    namespace = ["-r", "__ns:=/left"]
    controller = subprocess.Popen(
        [
            *(sys.executable, "-m", "iql_ros.cli", "run", "bundle", "--mode", "active"),
            *("--sim-time", "--contract", "arm6", "--", *namespace),
        ],
        cwd=folder,
    )
    try:
        parameters = ["-p", "episodes:=1", "-p", "speed:=5.0", "-p", "results:=results.json"]
        subprocess.run(
            [sys.executable, "-m", "sim.node", "--ros-args", *namespace, *parameters],
            cwd=folder,
            check=True,
            timeout=120,
        )
    finally:
        controller.terminate()
        assert controller.wait(30) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["finished"]
    assert results["latency_us"]["commands"] > 5
