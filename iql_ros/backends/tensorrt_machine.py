"""What an engine is built for: CUDA, a device, and one of the TensorRTs from 8.5 to 11."""

from __future__ import annotations

import platform
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from iql_ros.backends.cuda import Device, cuda_runtime, find_device, is_jetson
from iql_ros.backends.untyped import check_untyped
from iql_ros.bundles.precision import Precision
from iql_ros.errors import BundleError

OLDEST = (8, 5)  # the first with named tensors and execute_async_v3
OUT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|MemoryAllocation", re.IGNORECASE)


@dataclass(frozen=True)
class Machine:
    """CUDA's and TensorRT's modules, and the device."""

    cuda: Any
    trt: Any
    device: Device


def find_machine() -> Machine:
    """CUDA, a device, TensorRT, asked for in this order.

    Raises:
        BundleError: one of them is missing or too old; it says what to install.
    """
    cuda = cuda_runtime()
    device = find_device(cuda)
    return Machine(cuda, load_tensorrt(), device)


def load_tensorrt() -> Any:
    """The module `tensorrt`. Raises BundleError if it is missing or older than 8.5."""
    try:
        import tensorrt
    except ImportError as error:
        raise BundleError(f"TensorRT cannot be imported ({error}): {_remedy()}") from None
    if version_of(tensorrt) < OLDEST:
        raise BundleError(
            f"TensorRT is {tensorrt.__version__}, 8.5 or later is needed: {_remedy()}"
        )
    return tensorrt


def version_of(trt: Any) -> tuple[int, int]:
    """Major and minor version."""
    major, minor = str(trt.__version__).split(".")[:2]
    return int(major), int(minor)


def is_typed(trt: Any) -> bool:
    """Whether networks keep the types of their graph: an option in TensorRT 10, the rule in 11."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def check_precision(trt: Any, device: Device, precision: Precision) -> None:
    """Raises BundleError if TensorRT or the device does not run a precision."""
    if not is_typed(trt):
        check_untyped(trt, precision)
    if precision == "bf16" and float(device.compute_capability) < 8:
        raise BundleError(
            f"precision bf16 needs compute capability 8.0, {device.name} has "
            f"{device.compute_capability}: use fp16 or fp32"
        )


def make_log(trt: Any) -> Any:
    """A logger that keeps what went wrong last: the calls themselves only say that they failed."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=3)
            self.warnings: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)

        def text(self) -> str:
            # A CUDA that does not start is only a warning (seen with 8.6.0).
            return "; ".join(self.errors or self.warnings)

    return Log()


def start(machine: Machine, kind: Any, log: Any) -> Any:
    """A builder or a runtime. Raises BundleError where TensorRT does not get on with the driver."""
    try:
        return kind(log)
    except TypeError as error:  # how the bindings report a null pointer
        told = log.text() or str(error)
        if OUT_OF_MEMORY.search(told):
            raise BundleError(
                f"the device ran out of memory while TensorRT started ({told}): stop what else "
                f"uses the GPU, or use backend onnx"
            ) from None
        driver = machine.device.driver
        raise BundleError(
            f"TensorRT {machine.trt.__version__} does not start on {machine.device.name} "
            f"({told}): the driver serves CUDA up to {driver}, take a TensorRT made "
            f"for that (tensorrt-cu{driver.split('.')[0]} from PyPI), or update the driver"
        ) from None


def _remedy() -> str:
    if is_jetson():
        return (
            "on a Jetson it comes with JetPack: apt install python3-libnvinfer, and make the "
            "environment with --system-site-packages"
        )
    if platform.machine() != "x86_64":
        return "install NVIDIA's package for this platform, or use backend onnx"
    return "pip install tensorrt-cu12 (tensorrt-cu13 where nvidia-smi shows CUDA 13)"
