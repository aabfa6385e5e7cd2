"""One step on a CUDA device: input to the device, compute, output back, as one CUDA graph.

The buffers are made once. On a discrete GPU they are pinned, with twins on the device; where
GPU and CPU share their memory they are mapped, and nothing is copied at all.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.backends.cuda import CudaError, Device, call

Wait = Literal["spin", "block"]
"""How the CPU waits: "spin" takes a core and answers soonest, "block" sleeps and saves power."""

Shapes = Mapping[str, tuple[int, ...]]
Bind = Callable[[str, int], None]
"""Tells the computation a tensor's device address."""
Enqueue = Callable[[int], None]
"""Puts the computation on a stream, given its handle. Raises CudaError."""


@final
class CudaStep:
    """Buffers, a stream and, once captured, a graph. For one thread at a time.

    Attributes:
        arrays: by name, the host's float32 arrays; write inputs, `run()`, read outputs.
        launch: "graph" or "plain".
        why_plain: why there is no graph; empty if there is one, or none was asked for.
    """

    def __init__(
        self,
        cuda: Any,
        device: Device,
        inputs: Shapes,
        outputs: Shapes,
        bind: Bind,
        enqueue: Enqueue,
        *,
        graph: bool = True,
        wait: Wait = "spin",
    ) -> None:
        """Makes the buffers, runs once, and captures the graph. Freed with the object.

        Raises:
            CudaError: memory, stream or the first run fails; a failed capture does not raise.
        """
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.launch: Literal["graph", "plain"] = "plain"
        self.why_plain = ""
        self._cuda = cuda
        self._enqueue = enqueue
        self._graph: Any = None
        self._held = ExitStack()
        # Also at interpreter exit, before CUDA itself is torn down.
        release = weakref.finalize(self, self._held.close)
        try:
            self._stream = self._hold(
                call(cuda.cudaStreamCreateWithFlags, cuda.cudaStreamNonBlocking),
                cuda.cudaStreamDestroy,
            )
            flags = cuda.cudaEventDisableTiming
            if wait == "block":
                flags |= cuda.cudaEventBlockingSync  # without it the wait is a busy one
            self._done = self._hold(
                call(cuda.cudaEventCreateWithFlags, flags), cuda.cudaEventDestroy
            )
            self._copies_in = self._make(inputs, bind, device, into_device=True)
            self._copies_out = self._make(outputs, bind, device, into_device=False)
            if graph:
                self._use_graph(inputs, outputs)
            else:
                self.run()
        except BaseException:
            release()
            raise

    def run(self) -> None:
        """Computes the outputs for what is in the input arrays. Raises CudaError."""
        if self._graph is None:
            self._launch_plain()
        else:
            call(self._cuda.cudaGraphLaunch, self._graph, self._stream)
        call(self._cuda.cudaEventRecord, self._done, self._stream)
        call(self._cuda.cudaEventSynchronize, self._done)

    # -- buffers ---------------------------------------------------------------------

    def _make(
        self, shapes: Shapes, bind: Bind, device: Device, *, into_device: bool
    ) -> list[tuple[Any, ...]]:
        """Makes and binds one buffer for each shape; returns the arguments of its copies."""
        cuda = self._cuda
        copies = []
        for name, shape in shapes.items():
            size = 4 * int(np.prod(shape))
            flags = cuda.cudaHostAllocMapped if device.is_integrated else cuda.cudaHostAllocDefault
            host = self._hold(call(cuda.cudaHostAlloc, size, flags), cuda.cudaFreeHost)
            memory = (ctypes.c_float * (size // 4)).from_address(int(host))
            self.arrays[name] = np.ctypeslib.as_array(memory).reshape(shape)
            self.arrays[name][:] = 0
            if device.is_integrated:
                bind(name, int(call(cuda.cudaHostGetDevicePointer, host, 0)))
                continue
            twin = self._hold(call(cuda.cudaMalloc, size), cuda.cudaFree)
            bind(name, int(twin))
            kinds = cuda.cudaMemcpyKind
            copies.append(
                (twin, host, size, kinds.cudaMemcpyHostToDevice, self._stream)
                if into_device
                else (host, twin, size, kinds.cudaMemcpyDeviceToHost, self._stream)
            )
        return copies

    def _hold(self, handle: Any, free: Callable[[Any], Any]) -> Any:
        self._held.callback(free, handle)
        return handle

    # -- launching -------------------------------------------------------------------

    def _launch_plain(self) -> None:
        for copy in self._copies_in:
            call(self._cuda.cudaMemcpyAsync, *copy)
        self._enqueue(int(self._stream))
        for copy in self._copies_out:
            call(self._cuda.cudaMemcpyAsync, *copy)

    def _use_graph(self, inputs: Shapes, outputs: Shapes) -> None:
        """Launches by a graph from now on, unless it cannot be captured or computes otherwise."""
        # TensorRT finishes its set-up in the first run, which no capture may contain.
        plain = self._probe(inputs, outputs, 1.0)
        self._probe(inputs, outputs, 0.0)  # so that a graph that leaves out a copy is found out
        try:
            self._graph = self._capture()
            # Near, not equal: TensorRT may add in another order from one launch to the next.
            if not np.allclose(
                self._probe(inputs, outputs, 1.0), plain, rtol=1e-4, atol=1e-6, equal_nan=True
            ):
                raise CudaError("the graph computes other values than plain launches")
            self.launch = "graph"
        except CudaError as error:
            self._graph = None
            self._cuda.cudaGetLastError()  # forget it, or the next call reports it
            self.why_plain = str(error)

    def _probe(self, inputs: Shapes, outputs: Shapes, value: float) -> NDArray[np.float32]:
        """All outputs, one after the other, where every input is `value`."""
        for name in inputs:
            self.arrays[name][:] = value
        self.run()
        return np.concatenate([self.arrays[name].ravel() for name in outputs])

    def _capture(self) -> Any:
        cuda = self._cuda
        # Thread-local: what other threads do with CUDA meanwhile does not spoil the capture.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cuda.cudaStreamBeginCapture, self._stream, mode)
        try:
            self._launch_plain()
        except CudaError:
            cuda.cudaStreamEndCapture(self._stream)  # the stream must not stay in capture
            raise
        graph = call(cuda.cudaStreamEndCapture, self._stream)
        try:
            return self._hold(call(cuda.cudaGraphInstantiate, graph, 0), cuda.cudaGraphExecDestroy)
        finally:
            cuda.cudaGraphDestroy(graph)
