"""What a policy's step cannot cost less than: its matrix products alone, nothing between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Call = Callable[[NDArray[np.float32]], object]


def products_alone(policy: bytes) -> dict[str, Call]:
    """The products of `policy.onnx` whose right side is constant, each on an input of its own.

    Returns:
        One call for numpy's BLAS, one for ONNX Runtime, which beats it on many rows.
    """
    found = _products(policy)
    arrays = [np.ones((rows, len(weight)), np.float32) for rows, weight in found]
    outs = [np.zeros((rows, weight.shape[1]), np.float32) for rows, weight in found]
    weights = [weight for _, weight in found]

    def by_numpy(_: NDArray[np.float32]) -> None:
        for x, weight, out in zip(arrays, weights, outs, strict=True):
            np.matmul(x, weight, out=out)

    return {"products_numpy": by_numpy, "products_onnx": _by_onnx(arrays, weights, outs)}


def _products(policy: bytes) -> list[tuple[int, NDArray[np.float32]]]:
    """Rows of the data, and weight (in, out), of each product."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(policy))
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    found = []
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in constants:
            weight = constants[node.input[1]]
            transposed = any(one.name == "transB" and one.i for one in node.attribute)
            rows = int(np.prod(shapes[node.output[0]][:-1]))
            found.append((rows, np.ascontiguousarray(weight.T if transposed else weight)))
    return found


def _by_onnx(
    arrays: list[NDArray[np.float32]],
    weights: list[NDArray[np.float32]],
    outs: list[NDArray[np.float32]],
) -> Call:
    def values(kind: str, of: list[NDArray[np.float32]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(f"{kind}{i}", TensorProto.FLOAT, array.shape)
            for i, array in enumerate(of)
        ]

    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"y{i}"])
                for i in range(len(weights))
            ],
            "products",
            values("x", arrays),
            values("y", outs),
            [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for i, (x, y) in enumerate(zip(arrays, outs, strict=True)):
        binding.bind_ortvalue_input(f"x{i}", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(f"y{i}", ort.OrtValue.ortvalue_from_numpy(y))
    return lambda _: session.run_with_iobinding(binding)
