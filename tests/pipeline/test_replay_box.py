"""A black box of a controller with a real bundle, through `replay`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from iql_ros.blackbox.recording_file import read_recording
from iql_ros.blackbox.ring import BlackBox
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.cli import app
from iql_ros.contract import Contract
from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.policies import open_policy
from iql_ros.wire import Writer, make_types
from tests.bags import MS, START_NS
from tests.small_bundle import CONTRACT, Mlp, write_bundle
from training.replay import replay, run_box

TYPES = make_types({})


def bundle_with(out: Path, **safety: object) -> Bundle:
    contract = Contract.model_validate({**CONTRACT.canonical(), "safety": safety})
    graph = Mlp.drawn(0).graph(graph_metadata(contract))
    return write_bundle(out, contract=contract, policy=graph)


def box_of(bundle: Bundle, path: Path) -> Path:
    """Five seconds at 20 Hz, with a silence of the sensor and an emergency stop in them."""
    contract = bundle.contract
    box = BlackBox(contract, TYPES, about={"bundle": bundle.digest, "backend": "onnx"})
    policy = open_policy(bundle, "onnx").policy
    controller = Controller(contract, policy, TYPES, support=bundle.manifest.support, box=box)
    odom = Writer(
        TYPES, "nav_msgs/msg/Odometry", ["pose.pose.position.{x,y,z}", "twist.twist.linear.x"]
    )
    rng = np.random.default_rng(0)
    for i in range(100):
        t_ns = START_NS + 50 * i * MS
        if not 40 <= i < 55:
            controller.put("odom", t_ns, odom.write(rng.uniform(-2, 2, 4)))
        if i == 70:
            controller.halt("button", t_ns)
        if i == 80:
            controller.release()
        controller.tick(t_ns + 5 * MS)
    dumped = box.dump(path)
    assert dumped is not None
    return dumped


def test_replay_of_a_box_finds_every_decision_again(tmp_path: Path) -> None:
    bundle = bundle_with(
        tmp_path / "bundle", support={"action": "fallback"}, recover_after=3, blend_s=0.3
    )
    box = box_of(bundle, tmp_path / "box.mcap")
    summary = replay(bundle.path, box, tmp_path / "replay")
    assert summary["box"] == {
        "about": {"bundle": bundle.digest, "backend": "onnx"},
        "backend": "onnx",
        "same_bundle": True,
        "decisions": 101,
        "identical": 101,
    }
    assert summary["statuses"]["stale"] > 5
    assert summary["statuses"]["halted"] == 11
    assert summary["statuses"]["recovering"] == 4
    assert json.loads((tmp_path / "replay" / "replay.json").read_text())["box"]["identical"] == 101
    assert (tmp_path / "replay" / "replay.png").stat().st_size > 10_000


def test_replay_of_a_box_with_another_bundle_names_the_first_difference(tmp_path: Path) -> None:
    ours = bundle_with(tmp_path / "ours", blend_s=0.3)
    box = box_of(ours, tmp_path / "box.mcap")
    mlp = Mlp.drawn(1)
    theirs = write_bundle(
        tmp_path / "theirs",
        mlp=mlp,
        contract=ours.contract,
        policy=mlp.graph(graph_metadata(ours.contract)),
    )
    arguments = ["replay", str(theirs.path), str(box), "--out", str(tmp_path / "replay")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    note = (
        f"bundle {ours.digest[:12]} recorded this black box, but bundle {theirs.digest[:12]} "
        f"decides now; their contracts agree"
    )
    assert f"note {note}" in result.output
    found = json.loads((tmp_path / "replay" / "replay.json").read_text())["box"]
    assert found["note"] == note
    assert not found["same_bundle"]
    assert found["identical"] < found["decisions"]
    assert found["first_difference"]["then"][0] == "blending"
    assert found["first_difference"]["then"][1] != found["first_difference"]["now"][1]


def test_a_box_that_names_no_bundle_says_so(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "bundle")
    recording = replace(read_recording(box_of(bundle, tmp_path / "box.mcap")), about={})
    box = run_box(bundle, recording, "box.mcap").box
    assert box is not None
    assert box["note"].startswith("a bundle that it does not name recorded this black box, but ")


def test_a_box_of_another_contract_is_refused(tmp_path: Path) -> None:
    ours = bundle_with(tmp_path / "ours")
    box = box_of(ours, tmp_path / "box.mcap")
    other = bundle_with(tmp_path / "other", blend_s=0.5)
    with pytest.raises(
        ContractError, match=r"box\.mcap was made by another contract .* safety"
    ) as e:
        replay(other.path, box, tmp_path / "replay")
    assert str(e.value).endswith(
        f"; bundle {ours.digest[:12]} recorded it, and bundle {other.digest[:12]} cannot live its "
        f"decisions again: give a bundle of the box's contract"
    )
