"""An engine as a policy: deserialised, its tensors checked, its buffers bound, launched at once."""

from __future__ import annotations

import logging
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.backends.cuda import CudaError
from iql_ros.backends.cuda_step import CudaStep, Wait
from iql_ros.backends.guard import GuardedInput, check_signature, inputs_of
from iql_ros.backends.tensorrt_machine import Machine, make_log, start
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.errors import BundleError

logger = logging.getLogger(__name__)


@final
class TensorRtPolicy:
    """One step of the policy; see `iql_ros.bundles.golden.Policy`. Not for two threads at once.

    Attributes:
        step: the buffers and how they are launched.
    """

    def __init__(
        self,
        machine: Machine,
        data: bytes,
        bundle: Bundle,
        *,
        graph: bool = True,
        wait: Wait = "spin",
    ) -> None:
        """Readies an engine.

        Args:
            data: the engine, from a build or from a cache that checked its hash.
            graph: launch copies and kernels as one CUDA graph.
            wait: how the CPU waits for the device.

        Raises:
            BundleError: the engine is not this bundle's, or the device has no room for it.
        """
        trt = machine.trt
        log = make_log(trt)
        engine = start(machine, trt.Runtime, log).deserialize_cuda_engine(data)
        if engine is None:
            raise BundleError(
                f"TensorRT {trt.__version__} refuses the engine of {bundle.path} ({log.text()}): "
                f"iql-ros compile builds another in its place"
            )
        _check_tensors(trt, engine, bundle)
        context = engine.create_execution_context()
        if context is None:
            raise BundleError(
                f"the engine of {bundle.path} got no memory on {machine.device.name} "
                f"({log.text()}): stop what else uses the GPU, or use backend onnx"
            )

        def bind(name: str, address: int) -> None:
            if not context.set_tensor_address(name, address):
                raise CudaError(f"TensorRT refuses the buffer of {name!r} ({log.text()})")

        def enqueue(stream: int) -> None:
            if not context.execute_async_v3(stream):
                raise CudaError(f"TensorRT could not enqueue ({log.text()})")

        try:
            self.step = CudaStep(
                machine.cuda,
                machine.device,
                inputs_of(bundle),
                {"action": (1, bundle.contract.action_size)},
                bind,
                enqueue,
                graph=graph,
                wait=wait,
            )
        except CudaError as error:
            raise BundleError(
                f"the engine of {bundle.path} does not run on {machine.device.name} ({error}): "
                f"stop what else uses the GPU, or use backend onnx"
            ) from None
        if self.step.why_plain:
            logger.warning("no CUDA graph, plain launches instead: %s", self.step.why_plain)
        self._input = GuardedInput(bundle, self.step.arrays)
        self._run = self.step.run
        self._action: NDArray[np.float32] = self.step.arrays["action"][0]

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The action (A,) for one observation (O,), in SI units; NaN refuses.

        Raises:
            CudaError: the device failed; the controller then gives the safe action.
        """
        if not self._input.take(observation):
            return self._input.refusal()
        self._run()
        return self._action.copy()


def _check_tensors(trt: Any, engine: Any, bundle: Bundle) -> None:
    inputs: list[tuple[str, str, tuple[Any, ...]]] = []
    outputs: list[tuple[str, str, tuple[Any, ...]]] = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        is_float = engine.get_tensor_dtype(name) == trt.DataType.FLOAT
        kind = "tensor(float)" if is_float else str(engine.get_tensor_dtype(name))
        side = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        side.append((name, kind, tuple(engine.get_tensor_shape(name))))
    # An engine keeps no properties; the hash in bundle.json vouches for those of the graph.
    check_signature(bundle, inputs, outputs, graph_metadata(bundle.contract))
