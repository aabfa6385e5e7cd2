"""A policy's graph at a lower precision: the same graph, with the casts written into it.

The matrix products run at the lower precision, with the biases and ReLUs between them.
Everything in SI units stays float32: the normaliser before them, the squashing, scaling and
limits behind them. So what a runtime does is what the graph says, on every version of it, and
ONNX Runtime can show the loss on a machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.golden import TOLERANCE
from iql_ros.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Precision = Literal["fp32", "fp16", "bf16", "int8"]

RECIPE = 1
"""Goes up with every change to what is written into the graph: engines of older ones are stale."""

TOLERANCES: dict[Precision, float] = {  # share of the action's range
    "fp32": TOLERANCE,
    # Twenty roundings of 2^-11, eight of 2^-8. Measured on six policies of 256x256: on recorded
    # states 7e-4 and 8e-3, at the extremes of the limits up to 1.2e-2 and 6e-2. So float16
    # mostly passes, bfloat16 seldom and int8 hardly ever: a tolerance is there to refuse.
    "fp16": 1e-2,
    "bf16": 3e-2,
    "int8": 3e-2,
}

_PRODUCTS = ("Gemm", "MatMul")
_BETWEEN = ("Add", "Relu")
_FLOAT16_MAX = 65504.0
_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16  # TensorProto.DataType


def at_precision(
    policy: bytes,
    precision: Precision,
    calibration: Mapping[str, NDArray[np.float32]] | None = None,
) -> bytes:
    """The graph of `policy.onnx` at a precision; float32 in and out whichever it is.

    Args:
        policy: the graph as exported, float32.
        precision: "fp32" gives it back unchanged.
        calibration: for int8, rows (G, ...) of each input that set the ranges.

    Raises:
        BundleError: `onnx` is missing or cannot read the graph, or a weight does not fit.
    """
    if precision == "fp32":
        return policy
    try:
        import onnx
    except ImportError as error:
        raise BundleError(
            f"precision {precision} is written with the package onnx ({error}): pip install onnx, "
            f"or use fp32"
        ) from None
    try:
        model = onnx.load_model_from_string(policy)
    except Exception as error:  # protobuf's DecodeError is no class to rely on
        raise BundleError(f"policy.onnx cannot be read ({error}): export it again") from None
    if precision == "int8":
        from iql_ros.bundles.quantisation import quantise

        if calibration is None:
            raise BundleError("precision int8 needs observations to set its ranges: give some")
        quantise(model, calibration)
    else:
        _lower(model, precision)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _lower(model: ModelProto, precision: Precision) -> None:
    """Moves the products, and what lies between them, to `precision`; casts at the borders."""
    from onnx import helper

    kind, narrow = _KINDS[precision]
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    body, inside = _body(list(graph.node), set(constants))
    nodes: list[NodeProto] = []
    written: set[str] = set()

    def cast(name: str, to: int, suffix: str) -> str:
        """The name of a tensor's twin of the other kind, which is added where it is first used."""
        twin = f"{name}.{suffix}"
        if twin not in written:
            written.add(twin)
            if name in constants and to == kind:
                graph.initializer.append(narrow(constants[name], twin))
            else:
                nodes.append(helper.make_node("Cast", [name], [twin], to=to))
        return twin

    for number, node in enumerate(graph.node):
        lowered = number in body
        for i, name in enumerate(node.input):
            if name and lowered and name not in inside:
                node.input[i] = cast(name, kind, precision)
            elif not lowered and name in inside:
                node.input[i] = cast(name, _FLOAT, "fp32")
        nodes.append(node)
    for output in graph.output:
        if output.name in inside:
            _rename(nodes, output.name, f"{output.name}.{precision}")
            nodes.append(
                helper.make_node("Cast", [f"{output.name}.{precision}"], [output.name], to=_FLOAT)
            )
    _replace_nodes(model, nodes)


def _body(nodes: list[NodeProto], constants: set[str]) -> tuple[set[int], set[str]]:
    """Which nodes run at the lower precision, by number, and the tensors that they write."""
    body: set[int] = set()
    inside: set[str] = set()
    for number, node in enumerate(nodes):
        data = [name for name in node.input if name not in constants]
        follows = node.op_type in _BETWEEN and all(name in inside for name in data)
        if node.op_type in _PRODUCTS or (follows and data):
            body.add(number)
            inside.update(node.output)
    return body, inside


def _replace_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    graph = model.graph
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # the exporter's types of tensors that now have others
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _rename(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _float16(tensor: TensorProto, name: str) -> TensorProto:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0))
    if largest > _FLOAT16_MAX:
        raise BundleError(
            f"weight {tensor.name!r} holds {largest:.3g}, float16 ends at {_FLOAT16_MAX:.0f}: "
            f"compile with precision bf16 or fp32"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _bfloat16(tensor: TensorProto, name: str) -> TensorProto:
    """The upper half of each float32, rounded to nearest, ties to even; numpy has no such type."""
    from onnx import helper, numpy_helper

    bits = np.ascontiguousarray(numpy_helper.to_array(tensor), np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return helper.make_tensor(
        name, _BFLOAT16, tensor.dims, rounded.astype("<u2").tobytes(), raw=True
    )


_KINDS: dict[Precision, tuple[int, Callable[[TensorProto, str], TensorProto]]] = {
    "fp16": (_FLOAT16, _float16),
    "bf16": (_BFLOAT16, _bfloat16),
}
