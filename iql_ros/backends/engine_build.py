"""From an ONNX graph to a TensorRT engine, on the device that will run it.

One path for TensorRT 8.5 to 11: precision lies in the graph. Before TensorRT 10 the builder must
be told to keep to it (`untyped.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iql_ros.backends.tensorrt_machine import OUT_OF_MEMORY, Machine, is_typed, make_log, start
from iql_ros.backends.untyped import constrain
from iql_ros.bundles.precision import Precision
from iql_ros.errors import BundleError

Progress = Callable[[str, int, int], None]
"""Told the phase, the step that is done, and the number of steps; from TensorRT 10 on."""


@dataclass(frozen=True)
class Built:
    """What a build leaves: engine and timing cache, serialised, and how long it took."""

    engine: bytes
    timing: bytes
    seconds: float


def build_engine(
    machine: Machine,
    graph: bytes,
    *,
    precision: Precision,
    workspace_mb: int,
    timing: bytes = b"",
    progress: Progress | None = None,
) -> Built:
    """Builds an engine; seconds to minutes.

    Args:
        graph: an ONNX model with fixed shapes, already at the precision.
        precision: that of the graph.
        workspace_mb: device memory that a tactic may use as scratch.
        timing: measurements of earlier builds, from `Built.timing`; others are ignored.
        progress: told how far the build is.

    Raises:
        BundleError: an operator is not supported, memory runs out, or TensorRT fails otherwise.
    """
    started = time.perf_counter()
    trt = machine.trt
    log = make_log(trt)
    builder = start(machine, trt.Builder, log)
    flag = "STRONGLY_TYPED" if is_typed(trt) else "EXPLICIT_BATCH"
    flags = 1 << int(getattr(trt.NetworkDefinitionCreationFlag, flag))
    network = builder.create_network(flags)
    _parse(trt, graph, network, log)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa are no float32
    if not is_typed(trt):
        constrain(trt, network, config, precision)
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure("building the engine", log.text(), trt, workspace_mb)
    timings = config.get_timing_cache()
    return Built(
        engine=bytes(plan),
        timing=b"" if timings is None else bytes(timings.serialize()),
        seconds=time.perf_counter() - started,
    )


def _parse(trt: Any, graph: bytes, network: Any, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(graph):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    # From TensorRT 10 on also ..._ATTR, ..._INPUT and ..._DATATYPE, where a part is not supported.
    unsupported = [error for error in errors if error.code().name.startswith("UNSUPPORTED_NODE")]
    if unsupported:
        error = unsupported[0]
        raise BundleError(
            f"TensorRT {trt.__version__} does not support operator {_operator(error, graph)}: "
            f"{error.desc()} "
            f"(node {error.node()} of policy.onnx): update TensorRT, or use backend onnx"
        )
    told = "; ".join(error.desc() for error in errors) or log.text()
    raise BundleError(
        f"TensorRT {trt.__version__} cannot read policy.onnx ({told}): export the bundle again, "
        f"or use backend onnx"
    )


def _operator(error: Any, graph: bytes) -> str:
    """The operator's name, which before TensorRT 10 only the graph knows."""
    if hasattr(error, "node_operator"):
        return repr(error.node_operator())
    try:
        import onnx
    except ImportError:
        return "(pip install onnx to see which)"
    nodes = onnx.load_model_from_string(graph).graph.node
    return repr(nodes[error.node()].op_type) if 0 <= error.node() < len(nodes) else "(not named)"


def _failure(what: str, told: str, trt: Any, workspace_mb: int) -> BundleError:
    if OUT_OF_MEMORY.search(told):
        return BundleError(
            f"the device ran out of memory while {what} ({told}): stop what else uses the GPU, or "
            f"allow less with --workspace (it was {workspace_mb} MB)"
        )
    return BundleError(
        f"TensorRT {trt.__version__} failed while {what} ({told or 'it does not say why'}): "
        f"use backend onnx"
    )


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps[phase_name])
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name)
            progress(phase_name, steps, steps)

    return Monitor()
