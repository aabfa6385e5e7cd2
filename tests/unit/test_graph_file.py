"""What a policy's graph may hold: nothing that its hash does not cover, no chance, no loops."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from iql_ros.bundle import load_bundle
from iql_ros.bundles.graph_file import check_graph
from iql_ros.errors import BundleError
from tests.small_bundle import Mlp, write_bundle

Change = Callable[[onnx.ModelProto], object]
POLICY = Mlp.drawn(0).graph()


def put_outside(tensor: TensorProto) -> None:
    """Says that a tensor's values lie in a file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def branch_with(node: onnx.NodeProto) -> onnx.NodeProto:
    """An If whose branches hold a node, as one hides from a look at the main graph."""
    graph = helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))]
    )
    return helper.make_node("If", ["yes"], ["z"], then_branch=graph, else_branch=graph)


def constant_outside(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["x"], value=numpy_helper.from_array(np.ones(1)))
    put_outside(node.attribute[0].t)
    model.graph.node.append(branch_with(node))


def function_of(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], [node], opset))


def drawn(model: onnx.ModelProto) -> None:
    model.graph.node.append(branch_with(helper.make_node("RandomNormal", [], ["x"], shape=[1])))


def looped(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["n", "yes"], [], body=body))


FAULTS: dict[str, tuple[Change, str]] = {
    "weights": (lambda model: put_outside(model.graph.initializer[0]), "lie in another file"),
    "constant": (constant_outside, "lie in another file"),
    "function": (function_of, "it holds functions or a training graph"),
    "training": (lambda model: model.training_info.add().algorithm.SetInParent(), "training"),
    "draws": (drawn, "operator RandomNormal draws numbers of its own, must take the input noise"),
    "loops": (looped, "operator Loop may take for ever"),
    "opset": (lambda model: setattr(model.opset_import[0], "version", 21), r"of \{'': 21\}, must"),
    "domain": (
        lambda model: model.opset_import.add(domain="own", version=1),
        "'own': 1.*must be ONNX's own",
    ),
    "no opset": (lambda model: model.ClearField("opset_import"), r"of \{\}, must be ONNX's own"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_graph_that_is_no_fixed_whole_is_refused(fault: str) -> None:
    change, rule = FAULTS[fault]
    model = onnx.load_model_from_string(POLICY)
    change(model)
    with pytest.raises(BundleError, match=rule):
        check_graph(model.SerializeToString(), "policy.onnx")


def test_exported_graph_is_accepted() -> None:
    check_graph(POLICY, "policy.onnx")


def test_weights_beside_the_process_are_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime looks for them where the process runs: what was hashed is then not what runs."""
    model = onnx.load_model_from_string(POLICY)
    (tmp_path / "weights.bin").write_bytes(model.graph.initializer[0].raw_data)
    put_outside(model.graph.initializer[0])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="weights lie in another file, which no hash covers"):
        write_bundle(tmp_path / "bundle", policy=model.SerializeToString())
    assert not (tmp_path / "bundle").exists()


def test_bytes_that_are_no_model_are_refused_or_read_to_their_end() -> None:
    rng = random.Random(5)
    refused = 0
    for _ in range(2_000):
        data = bytearray(POLICY)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            check_graph(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]), "it")
        except BundleError:
            refused += 1
    assert refused > 1_000


@pytest.mark.parametrize("data", [b"\x3b", b"\x00\x00", b"\xff" * 12, b"\x3a\x05\x00", b"\x39"])
def test_broken_field_is_named(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"it is no ONNX model \(.*export the bundle again"):
        check_graph(data, "it")


def test_loaded_bundle_was_checked(tmp_path: Path) -> None:
    assert load_bundle(write_bundle(tmp_path / "bundle").path).policy == POLICY
