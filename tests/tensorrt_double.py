"""A stand-in for the module `tensorrt`: the interface of a version, and nothing else.

Names and signatures are those of the bindings' sources of 8.6, 10.3, 10.16 and 11; whatever a
version does not have raises AttributeError, also when it is assigned. An "engine" is the ONNX
graph itself, run by ONNX Runtime on the addresses that were bound. So this shows that the
code speaks each version's interface. It is no test of TensorRT: that is tests/gpu.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.cuda_double import CudaDouble

VERSIONS = ("8.6.2", "10.3.0", "10.16.1", "11.1.0")

MEMBERS = {
    "NetworkDefinitionCreationFlag": {
        8: ["EXPLICIT_BATCH", "EXPLICIT_PRECISION"],
        10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
        11: ["STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS", "PREFER_JIT_PYTHON_PLUGINS"],
    },
    "BuilderFlag": {
        8: ["FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE"],
        10: ["FP16", "BF16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE"],
        11: ["TF32", "VERSION_COMPATIBLE"],
    },
    "TacticSource": {
        8: ["CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS"],
        11: ["EDGE_MASK_CONVOLUTIONS"],
    },
    "LayerType": {8: ["CONSTANT", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "ELEMENTWISE"]},
    "DataType": {
        8: ["FLOAT", "HALF", "INT8", "INT32"],
        10: ["FLOAT", "HALF", "INT8", "INT32", "BF16"],
    },
    "MemoryPoolType": {8: ["WORKSPACE"]},
    "TensorIOMode": {8: ["NONE", "INPUT", "OUTPUT"]},
    "ErrorCode": {
        8: ["SUCCESS", "MODEL_DESERIALIZE_FAILED", "UNSUPPORTED_NODE"],
        10: [
            *("SUCCESS", "MODEL_DESERIALIZE_FAILED", "UNSUPPORTED_NODE"),
            *("UNSUPPORTED_NODE_ATTR", "UNSUPPORTED_NODE_INPUT", "UNSUPPORTED_NODE_DATATYPE"),
        ],
    },
}
TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
UNKNOWN = "Frobnicate"  # an operator that no version supports
UNKNOWN_TYPE = "Det"  # one that none supports of float32, which from 10 on has a code of its own


class Bound:
    """Like a class of the bindings: attributes that it does not declare cannot be assigned."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


class TypedLayer(Bound):
    """An ILayer of TensorRT 11, which has its type from the graph and cannot be told another."""

    def __init__(self, kind: Any, inputs: list[Any], outputs: list[Any]) -> None:
        self._kind, self._inputs, self._outputs = kind, inputs, outputs
        self._types: dict[int, Any] = {}

    @property
    def type(self) -> Any:
        return self._kind

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class Layer(TypedLayer):
    """An ILayer before TensorRT 11: it may be told its precision, unless it has a type."""

    precision: Any = None

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._types[index] = dtype


def layers(trt: Any, graph: onnx.GraphProto) -> list[Any]:
    """What a parser makes of a graph: a layer for each constant and node, types where explicit."""
    kinds, types = trt.LayerType, trt.DataType
    layer = Layer if hasattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS") else TypedLayer
    by_onnx = {1: types.FLOAT, 3: types.INT8, 6: types.INT32, 7: types.INT32, 10: types.HALF}
    explicit = {"Cast": kinds.CAST, "QuantizeLinear": kinds.QUANTIZE}
    explicit["DequantizeLinear"] = kinds.DEQUANTIZE
    tensors = {
        one.name: SimpleNamespace(name=one.name, dtype=by_onnx.get(one.data_type, types.FLOAT))
        for one in graph.initializer
    }
    made = [layer(kinds.CONSTANT, [], [tensor]) for tensor in tensors.values()]
    for node in graph.node:
        # Of a node without a type of its own an untyped network says float, whatever goes in.
        kind = next((by_onnx.get(one.i) for one in node.attribute if one.name == "to"), None)
        if node.op_type in ("ArgMax", "ArgMin"):
            kind = types.INT32
        for name in node.output:
            tensors[name] = SimpleNamespace(name=name, dtype=types.FLOAT if kind is None else kind)
        made.append(
            layer(
                explicit.get(node.op_type, kinds.ELEMENTWISE),
                [tensors.get(name) for name in node.input],
                [tensors[name] for name in node.output],
            )
        )
    return made


def check_untyped_build(trt: Any, network: Any, config: Any) -> None:
    """What a builder before TensorRT 10 must have been told, so that the types are the graph's."""
    assert config._tactics == 0b1000, "cuBLAS and cuDNN are to be left out"
    flags = {flag.name for flag in config._flags}
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(network._model)).graph
    kinds = {one.name: one.type.tensor_type.elem_type for one in graph.value_info}
    is_quantised = any(node.op_type == "QuantizeLinear" for node in graph.node)
    assert ("INT8" in flags) == is_quantised
    assert {"FP16", "OBEY_PRECISION_CONSTRAINTS"} & flags in (
        set(),
        {"FP16", "OBEY_PRECISION_CONSTRAINTS"},
    )
    if "FP16" not in flags:
        assert 10 not in kinds.values(), "float16 in the graph, and not allowed"
        return
    for layer in network._layers:
        output = layer._outputs[0]
        if layer.type.name in ("CONSTANT", "CAST"):
            assert (layer.precision, layer._types) == (None, {}), "it has its type"
        elif output.dtype != trt.DataType.INT32:
            wanted = trt.DataType.HALF if kinds.get(output.name) == 10 else trt.DataType.FLOAT
            assert (layer.precision, layer._types) == (wanted, {0: wanted}), output.name


def install_doubles(
    monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0", fault: str = "", **device: Any
) -> CudaDouble:
    """Puts both doubles where the modules would be imported from."""
    cuda = CudaDouble(**device)
    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double(version, cuda, fault))
    return cuda


def tensorrt_double(version: str, cuda: CudaDouble, fault: str = "") -> Any:
    """A module `tensorrt` of a version, on a CUDA double.

    Args:
        fault: an error that building logs before it gives None.
    """
    major = int(version.split(".")[0])
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    for name, by_major in MEMBERS.items():
        names = by_major[max(first for first in by_major if first <= major)]
        setattr(trt, name, enum.IntEnum(name, names, start=0))
    magic = f"engine of {version} ".encode()

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            self._made = True

    def checked(logger: Any) -> Any:
        assert logger._made, "ILogger.__init__ was not called"
        assert cuda.asked, "without a device this ends the process: ask the driver first"
        return logger

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> bytes:
            return self._data

    class IBuilderConfig(Bound):
        def __init__(self) -> None:
            self._cache: Any = None
            self._flags = {trt.BuilderFlag.TF32}
            self._pools: dict[Any, int] = {}
            self._tactics = 0b1111

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self._pools[trt.MemoryPoolType(pool)] = pool_size

        def set_flag(self, flag: Any) -> None:
            self._flags.add(trt.BuilderFlag(flag))

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(trt.BuilderFlag(flag))

        def get_tactic_sources(self) -> int:
            return self._tactics

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            self._tactics = tactic_sources
            return True

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            if cache._data not in (b"", b"timings of " + version.encode()):
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    class INetworkDefinition(Bound):
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._model = b""
            self._layers: list[Any] = []

        @property
        def num_layers(self) -> int:
            return len(self._layers)

        def get_layer(self, index: int) -> Any:
            return self._layers[index]

    class Builder(Bound):
        def __init__(self, logger: Any) -> None:
            self._logger = checked(logger)

        def create_network(self, flags: int = 0) -> Any:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            batch = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
            assert network._flags == 1 << int(batch if typed is None else typed)
            assert trt.BuilderFlag.TF32 not in config._flags
            if typed is None:
                check_untyped_build(trt, network, config)
            assert config._pools[trt.MemoryPoolType.WORKSPACE] >= 1 << 20
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building engine", None, 2)
                assert all(monitor.step_complete("Building engine", step) for step in range(2))
                monitor.phase_finish("Building engine")
            if fault:
                self._logger.log(ILogger.ERROR, fault)
                return None
            config._cache._data = b"timings of " + version.encode()
            return magic + network._model

    class ParserError:
        def __init__(self, index: int, operator: str) -> None:
            self._index, self._operator = index, operator

        def code(self) -> Any:
            if not self._operator:
                return trt.ErrorCode.MODEL_DESERIALIZE_FAILED
            is_type = major >= 10 and self._operator == UNKNOWN_TYPE
            return trt.ErrorCode["UNSUPPORTED_NODE" + ("_DATATYPE" if is_type else "")]

        def desc(self) -> str:
            if major < 10:  # it does not say of what
                return 'Assertion failed: creator && "Plugin not found"'
            return f"No importer registered for op: {self._operator}"

        def node(self) -> int:
            return self._index

    class OnnxParser(Bound):
        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self._logger = network, checked(logger)
            self._errors: list[Any] = []

        def parse(self, model: bytes, path: str | None = None) -> bool:
            try:
                graph = onnx.load_model_from_string(model).graph
                nodes = list(graph.node)
            except Exception:
                self._errors = [ParserError(-1, "")]
                return False
            self._network._layers = layers(trt, graph)
            unknown = [i for i, node in enumerate(nodes) if node.op_type in (UNKNOWN, UNKNOWN_TYPE)]
            self._errors = [ParserError(i, nodes[i].op_type) for i in unknown]
            self._network._model = model
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> Any:
            return self._errors[index]

    class ICudaEngine(Bound):
        def __init__(self, model: bytes, logger: Any) -> None:
            self._logger = logger
            self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
            self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return str(self._tensors[index].name)

        def get_tensor_mode(self, name: str) -> Any:
            is_input = name in [tensor.name for tensor in self._session.get_inputs()]
            return trt.TensorIOMode.INPUT if is_input else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> Any:
            return tuple(self._named(name).shape)

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType[TYPES[self._named(name).type]]

        def create_execution_context(self) -> Any:
            return IExecutionContext(self)

        def _named(self, name: str) -> Any:
            return next(tensor for tensor in self._tensors if tensor.name == name)

    class IExecutionContext(Bound):
        def __init__(self, engine: Any) -> None:
            self._engine = engine
            self._arrays: dict[str, Any] = {}
            self._warm = False

        def set_tensor_address(self, name: str, memory: int) -> bool:
            size = int(np.prod(self._engine.get_tensor_shape(name)))
            array = np.ctypeslib.as_array((ctypes.c_float * size).from_address(memory))
            self._arrays[name] = array.reshape(self._engine.get_tensor_shape(name))
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            if cuda.live.get(stream_handle) != "stream":
                return False
            if cuda.capturing is not None and not self._warm:
                return False  # the first enqueue allocates, which no capture may contain
            self._warm = True
            cuda.put("kernels", self._compute)
            return True

        def _compute(self) -> None:
            inputs = {
                name: array.copy() for name, array in self._arrays.items() if name != "action"
            }
            (self._arrays["action"][:],) = self._engine._session.run(["action"], inputs)

    class Runtime(Bound):
        def __init__(self, logger: Any) -> None:
            self._logger = checked(logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            if not serialized_engine.startswith(magic):
                self._logger.log(ILogger.ERROR, "The engine plan file is not compatible")
                return None
            return ICudaEngine(serialized_engine[len(magic) :], self._logger)

    if major >= 10:

        class IProgressMonitor:
            def __init__(self) -> None:
                pass

        trt.IProgressMonitor = IProgressMonitor
        IBuilderConfig.progress_monitor = None  # type: ignore[attr-defined]
        ParserError.node_operator = lambda self: self._operator  # type: ignore[attr-defined]
    for one in (ILogger, Builder, OnnxParser, Runtime):
        setattr(trt, one.__name__, one)
    return trt
