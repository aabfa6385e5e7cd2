"""What a lower precision costs, by the very graphs that are compiled, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from iql_ros.bundles.precision import TOLERANCES, Precision, at_precision
from iql_ros.errors import BundleError
from tests.small_bundle import CONTRACT, Mlp

OBSERVATIONS = np.random.default_rng(5).uniform(-5, 5, (64, 4)).astype(np.float32)
RANGE = (CONTRACT.action_high - CONTRACT.action_low).astype(np.float64)


def run(graph: bytes) -> NDArray[Any]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.vstack([session.run(None, {"observation": x[None]})[0] for x in OBSERVATIONS])


def run_reference(graph: bytes) -> NDArray[Any]:
    """By `onnx` itself, which rounds every result, as no GPU that adds in float32 would."""
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(graph))
    return np.vstack([evaluator.run(None, {"observation": x[None]})[0] for x in OBSERVATIONS])


def share(actions: NDArray[Any]) -> float:
    """Largest difference from the numpy oracle, as a share of the action's range."""
    return float((np.abs(actions - Mlp.drawn(0, 64)(OBSERVATIONS)) / RANGE).max())


@pytest.mark.parametrize("evaluate", [run, run_reference])
def test_float16_differs_by_its_rounding_and_no_more(evaluate: Any) -> None:
    graph = at_precision(Mlp.drawn(0, 64).graph(), "fp16")
    assert 1e-6 < share(evaluate(graph)) < TOLERANCES["fp16"]


def test_bfloat16_differs_by_its_rounding_and_no_more() -> None:
    difference = share(run_reference(at_precision(Mlp.drawn(0, 64).graph(), "bf16")))
    assert share(run_reference(at_precision(Mlp.drawn(0, 64).graph(), "fp16"))) < difference
    assert difference < TOLERANCES["bf16"]


def test_int8_runs_and_is_coarser_than_float16() -> None:
    graph = at_precision(Mlp.drawn(0, 64).graph(), "int8", {"observation": OBSERVATIONS})
    # Two layers of 64 with well-filled ranges; trained policies lose ten times as much.
    assert share(run(at_precision(Mlp.drawn(0, 64).graph(), "fp16"))) < share(run(graph)) < 0.05


def test_float32_is_the_graph_as_exported() -> None:
    graph = Mlp.drawn(0).graph()
    assert at_precision(graph, "fp32") is graph


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_signature_and_properties_stay(precision: Precision) -> None:
    before = onnx.load_model_from_string(Mlp.drawn(0).graph())
    after = onnx.load_model_from_string(
        at_precision(Mlp.drawn(0).graph(), precision, {"observation": OBSERVATIONS})
    )
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.metadata_props) == list(before.metadata_props)


def test_only_products_and_what_lies_between_them_are_lowered() -> None:
    model = onnx.load_model_from_string(at_precision(Mlp.drawn(0).graph(), "fp16"))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["inner.fp16"] == kinds["outer.fp16"] == TensorProto.FLOAT16
    assert kinds["half"] == kinds["low"] == kinds["one"] == TensorProto.FLOAT
    assert set(kinds) == {"inner.fp16", "outer.fp16", "half", "low", "one"}  # no second copy
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert [types[name] for name in "abc"] == [TensorProto.FLOAT16] * 3
    assert [types[name] for name in "def"] == [TensorProto.FLOAT] * 3


def test_a_product_that_is_the_output_is_cast_back() -> None:
    # One linear layer: the lowered tensor is itself the graph's output.
    weight = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "w"], ["action"])],
        "linear",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    actions = run(at_precision(model.SerializeToString(), "fp16"))
    assert actions.dtype == np.float32
    # Inputs up to 5, four products, rounded to 11 bits: some units of 2e-3 at magnitude 10.
    assert np.allclose(actions, OBSERVATIONS @ weight, atol=2e-2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_rounding_is_to_nearest_even(precision: Precision) -> None:
    mlp = Mlp.drawn(3, 64)
    bits = 11 if precision == "fp16" else 8
    # Halfway between two numbers: the first goes down, the second up.
    mlp.inner[0, :2] = 1 + 0.5 ** np.array([bits, bits]) * (1, 3)
    model = onnx.load_model_from_string(at_precision(mlp.graph(), precision))
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = stored[f"inner.{precision}"].astype(np.float32)
    exponent = np.floor(np.log2(np.abs(mlp.inner)))
    step = 2.0 ** (exponent - bits + 1)
    assert np.array_equal(found, np.rint(mlp.inner / step) * step)  # rint: ties to even


def test_weight_beyond_float16_is_named() -> None:
    mlp = Mlp.drawn(0)
    mlp.inner[0, 0] = 7e4
    with pytest.raises(BundleError, match=r"weight 'inner' holds 7e\+04, float16 ends at 65504"):
        at_precision(mlp.graph(), "fp16")
    at_precision(mlp.graph(), "bf16")


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(BundleError, match=r"policy.onnx cannot be read"):
        at_precision(b"no graph", "fp16")
