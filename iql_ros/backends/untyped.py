"""TensorRT before its strongly typed networks: the types of the graph, said layer by layer.

There the builder may choose the precision of every layer among those that are allowed, so each
layer is told the type that the graph gives it, and the builder must obey or fail. With this
float16 means the same on 8.6 (JetPack 6.0) as on 10 and 11.
"""

from __future__ import annotations

from typing import Any

from iql_ros.bundles.precision import Precision
from iql_ros.errors import BundleError

_FLAGS = {"fp16": "FP16", "int8": "INT8"}
_LIBRARIES = ("CUBLAS", "CUBLAS_LT", "CUDNN")
# Their type is written into them: constraining it again is refused.
_EXPLICIT = ("CONSTANT", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE")


def constrain(trt: Any, network: Any, config: Any, precision: Precision) -> None:
    """Makes an untyped network compute as its graph says.

    Raises:
        BundleError: this TensorRT does not know the precision.
    """
    config.set_tactic_sources(_own_tactics(trt, config.get_tactic_sources()))
    if precision == "fp32":  # the only type that is left once TF32 is off
        return
    check_untyped(trt, precision)
    config.set_flag(getattr(trt.BuilderFlag, _FLAGS[precision]))
    if precision == "int8":  # Q/DQ pairs say where; the rest has only float32 to choose
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    halves: set[str] = set()
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if layer.type.name in _EXPLICIT:
            halves.update(one.name for one in outputs if one.dtype == trt.DataType.HALF)
            continue
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        is_half = any(one is not None and one.name in halves for one in inputs)
        for i, output in enumerate(outputs):
            if output.dtype in floats:  # not the indices of a choice
                kind = trt.DataType.HALF if is_half else trt.DataType.FLOAT
                layer.precision = kind
                layer.set_output_type(i, kind)
                if is_half:
                    halves.add(output.name)


def check_untyped(trt: Any, precision: Precision) -> None:
    """Raises BundleError if a TensorRT without typed networks has no such precision."""
    if precision != "fp32" and precision not in _FLAGS:
        raise BundleError(
            f"precision {precision} needs TensorRT 10, here is {trt.__version__}: use fp16 or "
            f"fp32, or update (JetPack 6.1 has 10.3)"
        )


def _own_tactics(trt: Any, sources: int) -> int:
    """Without cuBLAS and cuDNN, as from TensorRT 10 on: two libraries less to be in step with."""
    for name in _LIBRARIES:
        sources &= ~(1 << int(getattr(trt.TacticSource, name)))
    return sources
