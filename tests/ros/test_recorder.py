"""The recorder of a whole run: a bag that converts by the contract, whatever ends it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from std_msgs.msg import Int32

from iql_ros.blackbox.recording_file import channels_of
from iql_ros.bundles.format import graph_metadata
from iql_ros.contract import Contract
from iql_ros.nodes import recorder
from iql_ros.nodes.recorder import Recorder
from iql_ros.nodes.types import installed_types
from tests.ros.robot import processes_in, robot_on
from tests.small_bundle import CONTRACT, Mlp, write_bundle
from tests.small_gate import pass_gate
from training.conversion.convert import convert
from training.datasets.dataset import load_dataset
from training.logs import open_log

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

CHANNELS = channels_of(CONTRACT, installed_types(CONTRACT))


def made(folder: Path, said: list[str]) -> Recorder:
    return Recorder(folder, CHANNELS, said.append)


def test_a_recorded_run_converts_by_the_same_contract(tmp_path: Path) -> None:
    bundle = pass_gate(write_bundle(tmp_path / "bundle"))
    with processes_in(tmp_path) as processes, robot_on() as robot:
        process = processes.run(bundle, f"record:={tmp_path / 'runs'}")
        assert robot.until(robot.moves), processes.log()
        acted = robot.commands[-1][1]
        robot.spin(2.0)
        process.send_signal(signal.SIGINT)
        assert robot.until(lambda: process.poll() is not None, 20)
    (run,) = (tmp_path / "runs").iterdir()
    assert [path.name for path in run.iterdir()] == [f"{run.name}_0.mcap"]
    convert([run], CONTRACT, tmp_path / "data.h5")
    steps = load_dataset(tmp_path / "data.h5")
    assert len(steps.actions) >= 20  # of about 40 in two seconds
    middle = steps.actions[len(steps.actions) // 2]
    np.testing.assert_allclose(middle, [acted.linear.x, acted.angular.z], atol=1e-6)  # float32
    last = open_log(run)
    assert last.topics["/cmd"].count > 20


def test_a_run_has_the_topics_that_only_signals_and_episodes_need(tmp_path: Path) -> None:
    plain = CONTRACT.canonical()
    number = "std_msgs/msg/Int32"
    plain["topics"] |= {
        "load": {"topic": "/load", "type": number, "max_age_s": 0.5},
        "lap": {"topic": "/lap", "type": number, "max_age_s": 0.5},
    }
    plain |= {
        "signals": [
            {"name": "load", "topic": "load", "path": "data"},
            {"name": "lap", "topic": "lap", "path": "data"},
        ],
        "reward": {"expression": "-load"},
        "episode": {"reset": "lap"},
    }
    contract = Contract.model_validate(plain)
    mlp = Mlp.drawn(0, contract=contract)
    graph = mlp.graph(graph_metadata(contract))
    written = write_bundle(tmp_path / "bundle", mlp, contract=contract, policy=graph)
    bundle = pass_gate(written)
    with processes_in(tmp_path) as processes, robot_on() as robot:
        process = processes.run(bundle, f"record:={tmp_path / 'runs'}")
        assert robot.until(robot.moves), processes.log()  # it waits for neither of the two
        load = robot.node.create_publisher(Int32, "/load", 10)
        lap = robot.node.create_publisher(Int32, "/lap", 10)
        began = time.monotonic()

        def talk() -> None:
            load.publish(Int32(data=7))
            lap.publish(Int32(data=int(time.monotonic() - began)))

        robot.node.create_timer(0.05, talk)
        robot.spin(3.5)
        process.send_signal(signal.SIGINT)
        assert robot.until(lambda: process.poll() is not None, 20)
    (run,) = (tmp_path / "runs").iterdir()
    convert([run], contract, tmp_path / "data.h5")
    steps = load_dataset(tmp_path / "data.h5")
    assert len(steps.actions) >= 20  # of about 70 in 3.5 seconds
    np.testing.assert_array_equal(steps.rewards, -7)
    assert len(steps.episodes[0]) >= 2


def test_parts_are_whole_one_by_one_and_make_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PART_BYTES", 2000)
    monkeypatch.setattr(recorder, "EVERY_S", 0.01)
    run = tmp_path / "walk"
    taker = made(run, said := [])
    for i in range(30):
        taker.put("/odom", i, bytes(700))
        time.sleep(0.01)
    whole = [path for path in run.iterdir() if path.suffix == ".mcap"]
    assert len(whole) > 1  # while it still records
    taker.close()
    assert not [path for path in run.iterdir() if path.suffix != ".mcap"]
    assert open_log(run).topics["/odom"].count == 30
    assert not said


def test_a_disk_that_is_full_ends_the_recording_and_leaves_whole_parts_only(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()  # where the folder should be
    taker = made(blocked / "run", said := [])
    taker.put("/odom", 0, bytes(700))
    taker.close()
    assert "recording has ended: Not a directory; 0 whole parts are in" in said[0]
    assert taker.state == "recording has ended: Not a directory"
    taker.put("/odom", 1, bytes(700))  # and it does not mind


def test_what_a_stalled_disk_cannot_take_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING_BYTES", 1000)
    taker = made(tmp_path / "run", said := [])
    for i in range(50):
        taker.put("/odom", i, bytes(700))
    taker.close()
    count = open_log(tmp_path / "run").topics["/odom"].count
    assert 2 <= count < 50
    assert said == [f"recording: {50 - count} messages were left out, the disk was too slow"]
