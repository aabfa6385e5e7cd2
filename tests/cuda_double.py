"""A stand-in for `cuda.bindings.runtime`, so that the code around CUDA runs without a GPU.

Names, argument order and return tuples are those of cuda-bindings 12 and 13. Device memory is
host memory behind real addresses, a graph is a list of what was captured. It shows that the
calls are made in an order that CUDA allows; what a GPU does, only a GPU shows (tests/gpu).
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Work = Callable[[], None]


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess


class CudaDouble:
    """One device, whose driver, device count and faults a test chooses.

    Attributes:
        asked: whether the device count was asked for.
        live: what was made and not freed, by address or handle.
        launches: number of graph launches.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaHostAllocDefault, cudaHostAllocMapped = 0, 2
    cudaStreamNonBlocking = 1
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2

    def __init__(
        self,
        *,
        driver: int = 12060,
        count: int = 1,
        integrated: bool = False,
        memory: int = 1 << 30,
        captures: bool = True,
        forgets_copies: bool = False,
    ) -> None:
        self.driver, self.count, self.integrated = driver, count, integrated
        self.memory, self.captures, self.forgets_copies = memory, captures, forgets_copies
        self.asked = False
        self.live: dict[int, Any] = {}
        self.event_flags: list[int] = []
        self.launches = 0
        self.capturing: list[tuple[str, Work]] | None = None
        self._handles = 1000

    # -- device ----------------------------------------------------------------------

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return OK, 12060

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        self.asked = True
        if self.driver < 12000:
            return cudaError_t.cudaErrorInsufficientDriver, None
        return (OK, self.count) if self.count else (cudaError_t.cudaErrorNoDevice, None)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return OK, 0

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        facts = SimpleNamespace(name=b"Double", major=8, minor=7, integrated=int(self.integrated))
        return OK, facts

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    # -- memory ----------------------------------------------------------------------

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        assert flags == (self.cudaHostAllocMapped if self.integrated else 0)
        return self._allocate(size)

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        return self._free(ptr)

    def cudaHostGetDevicePointer(self, pHost: int, flags: int) -> tuple[Any, ...]:
        assert self.integrated
        return OK, pHost

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        assert not self.integrated
        return self._allocate(size)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        return self._free(devPtr)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[Any, ...]:
        self.put("copy", lambda: ctypes.memmove(dst, src, count))
        return (OK,)

    # -- streams, events, graphs -----------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return OK, self._handle("stream")

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._free(stream)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self.event_flags.append(flags)
        return OK, self._handle("event")

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        return self._free(event)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        assert self.live[event] == "event"
        assert self.live[stream] == "stream"
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        assert self.capturing is None, "a wait inside a capture spoils it"
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
        assert self.capturing is None
        self.capturing = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        work, self.capturing = self.capturing, None
        if not self.captures or work is None:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        kept = [w for kind, w in work if kind != "copy" or not self.forgets_copies]
        return OK, self._handle(kept)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        return OK, self._handle(list(self.live[graph]))

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        return self._free(graph)

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for work in self.live[graphExec]:
            work()
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:
        return self._free(graphExec)

    # -- what the TensorRT double needs ----------------------------------------------

    def put(self, kind: str, work: Work) -> None:
        """Does work now, or keeps it for the graph that is being captured."""
        if self.capturing is None:
            work()
        else:
            self.capturing.append((kind, work))

    def _allocate(self, size: int) -> tuple[Any, ...]:
        if size > self.memory:
            return cudaError_t.cudaErrorMemoryAllocation, None
        memory = (ctypes.c_char * size)()
        self.live[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    def _handle(self, what: Any) -> int:
        self._handles += 1
        self.live[self._handles] = what
        return self._handles

    def _free(self, handle: int) -> tuple[Any, ...]:
        del self.live[handle]
        return (OK,)
