"""int8 by Q/DQ pairs in the graph: what TensorRT 10 and later, and ONNX Runtime, both read.

For policies of fully connected layers int8 was measured to be off by 3e-2 of the action range,
so the golden pairs normally refuse it. It is here for large networks that bear it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_LARGEST = 127  # symmetric, as TensorRT asks: zero point 0, -128 unused


def quantise(model: ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> None:
    """Puts a Q/DQ pair on the data and on the weights of every product with constant weights.

    Data have one scale, the largest magnitude seen over the rows (G, ...) of the inputs; weights
    have one for each output.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [
        node
        for node in graph.node
        if node.op_type in ("Gemm", "MatMul")
        and node.input[0] not in weights
        and weights.get(node.input[1], np.zeros(0)).ndim == 2
    ]
    ranges = _ranges(model, sorted({node.input[0] for node in products}), inputs)
    nodes: list[NodeProto] = []
    quantised: dict[str, str] = {}

    def pair(name: str, scale: NDArray[np.float32], axis: int | None) -> str:
        if name not in quantised:
            quantised[name] = f"{name}.dq"
            nodes.extend(_pair(model, name, scale, axis))
        return quantised[name]

    for node in graph.node:
        if node in products:
            data, weight = node.input[0], node.input[1]
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if transposed else 1
            widest = np.abs(weights[weight]).max(axis=1 - axis)
            node.input[0] = pair(data, _scale(np.float32(ranges[data])), None)
            node.input[1] = pair(weight, _scale(widest), axis)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]


def _scale(largest: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Float value of one step; a tensor of zeros gets any that is not zero."""
    widest = np.asarray(largest, np.float32)
    return np.where(widest > 0, widest, 1).astype(np.float32) / np.float32(_LARGEST)


def _pair(
    model: ModelProto, name: str, scale: NDArray[np.float32], axis: int | None
) -> list[NodeProto]:
    from onnx import helper, numpy_helper

    zero = np.zeros(scale.shape, np.int8)
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    model.graph.initializer.append(numpy_helper.from_array(zero, f"{name}.zero"))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    parameters = [f"{name}.scale", f"{name}.zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}.q"], **attributes),
        helper.make_node(
            "DequantizeLinear", [f"{name}.q", *parameters], [f"{name}.dq"], **attributes
        ),
    ]


def _ranges(
    model: ModelProto, names: list[str], inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Largest magnitude of each named tensor over the inputs' rows, one run for each."""
    from onnx import ModelProto as Model
    from onnx import TensorProto, helper

    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BundleError(
            f"int8 is calibrated with ONNX Runtime ({error}): pip install onnxruntime"
        ) from None
    probe = Model()
    probe.CopyFrom(model)
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in inputs
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [name for name in names if name not in inputs]
    largest = {name: float(np.abs(inputs[name]).max()) for name in names if name in inputs}
    for rows in zip(*inputs.values(), strict=True):
        values = session.run(
            wanted, {name: row[None] for name, row in zip(inputs, rows, strict=True)}
        )
        for name, value in zip(wanted, values, strict=True):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
    return largest
