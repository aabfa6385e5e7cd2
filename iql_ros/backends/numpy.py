"""Runs a policy with numpy alone: the oracle of the other backends, and the last resort.

The operators of an MLP write into buffers made once; the rest are evaluated by `onnx`'s own
reference implementation, which is slow and right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.backends.guard import GuardedInput, check_signature
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import POLICY_FILE
from iql_ros.errors import BundleError

Array = NDArray[Any]
Step = Callable[[], Any]
"""An operator bound to the arrays it reads and writes."""

_TWO_OPERANDS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "MatMul": np.matmul,
}


def open_numpy(bundle: Bundle) -> NumpyPolicy:
    """Opens `policy.onnx` for numpy, and checks that its signature is the contract's.

    Raises:
        BundleError: `onnx` is missing, cannot read the graph or lacks one of its operators, or
            the signature differs.
    """
    where = str(bundle.path / POLICY_FILE)
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise BundleError(f"backend numpy needs onnx ({error}): pip install onnx") from None
    try:
        model = onnx.load_model_from_string(bundle.policy)
        evaluator = ReferenceEvaluator(model)
        signature = [
            [(one.name, _type_name(one), _shape(one)) for one in values]
            for values in (model.graph.input, model.graph.output)
        ]
    except Exception as error:  # protobuf's and the evaluator's errors have no common base
        raise BundleError(
            f"{where}: onnx {onnx.__version__} refuses the graph ({type(error).__name__}: {error}):"
            f" export the bundle again, or use backend onnx"
        ) from None
    properties = {prop.key: prop.value for prop in model.metadata_props}
    check_signature(bundle, signature[0], signature[1], properties)
    return NumpyPolicy(evaluator, bundle, where)


@final
class NumpyPolicy:
    """One step of the policy; see `iql_ros.bundles.golden.Policy`. Not for two threads at once."""

    def __init__(self, evaluator: Any, bundle: Bundle, where: str) -> None:
        self._input = GuardedInput(bundle)
        self._steps, action = _plan(evaluator, self._input.arrays, where)
        self._action: NDArray[np.float32] = action[0]

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The action (A,) for one observation (O,), in SI units; NaN refuses."""
        if not self._input.take(observation):
            return self._input.refusal()
        for step in self._steps:
            step()
        return self._action.copy()


def _plan(evaluator: Any, inputs: Mapping[str, Array], where: str) -> tuple[list[Step], Array]:
    """Runs the graph once, and keeps each result's array for every later run to write into."""
    values: dict[str, Array] = {**inputs, "": np.zeros(0)}
    values.update(evaluator.rt_inits_)
    steps: list[Step] = []
    for node in evaluator.rt_nodes_:
        operands = tuple(values[name] for name in node.input)
        try:
            results = _evaluate(node, operands)
        except Exception as error:  # whatever one of its operators meets
            raise BundleError(
                f"{where}: operator {node.op_type} cannot be run by numpy ({error}): "
                f"use backend onnx"
            ) from None
        outputs = tuple(np.array(result) for result in results)
        values.update(zip(node.output, outputs, strict=True))
        if node.op_type != "Constant":
            steps.append(_step(node, operands, outputs))
    return steps, values["action"]


def _step(node: Any, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Step:
    kind, out = node.op_type, outputs[0]
    if kind == "Tanh":
        return partial(np.tanh, *inputs, out=out)
    if kind == "Relu":
        return partial(np.maximum, *inputs, np.zeros((), out.dtype), out=out)
    if kind in _TWO_OPERANDS and len(inputs) == 2:  # Max and Min may have more
        return partial(_TWO_OPERANDS[kind], *inputs, out=out)
    if kind == "Gemm" and len(inputs) == 3 and (node.transA, node.alpha, node.beta) == (0, 1, 1):
        x, weight, bias = inputs
        # A view, no copy: the second operand may be a result, too.
        return partial(_affine, x, weight.T if node.transB else weight, bias, out)
    return partial(_reference, node, inputs, outputs)


def _affine(x: Array, weight: Array, bias: Array, out: Array) -> None:
    np.matmul(x, weight, out=out)
    np.add(out, bias, out=out)


def _reference(node: Any, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> None:
    for out, result in zip(outputs, _evaluate(node, inputs), strict=True):
        out[...] = result


def _evaluate(node: Any, inputs: tuple[Array, ...]) -> Sequence[Any]:
    """The node's results, as many as it names."""
    if node.op_type == "GatherElements":  # the reference cannot gather from more than 64
        return [np.take_along_axis(inputs[0], inputs[1], node.axis)]
    # LayerNormalization returns more than a node that names one output asks for.
    results: Sequence[Any] = node.run(*inputs)
    return results[: len(node.output)]


def _type_name(value: Any) -> str:
    import onnx

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return f"tensor({kind.lower()})"


def _shape(value: Any) -> tuple[int | str, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(one.dim_param or one.dim_value for one in dimensions)
