"""The CUDA runtime: finding a device, and calls that raise what they return.

Through `cuda-bindings`, which needs neither torch nor a compiler. Ask here for a device
before TensorRT is touched: without one its runtime ends the process (seen with 8.6.0).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iql_ros.errors import BundleError

_JETSON_RELEASE = Path("/etc/nv_tegra_release")


class CudaError(RuntimeError):
    """A CUDA call failed; the text names the call and CUDA's own error."""


@dataclass(frozen=True)
class Device:
    """A CUDA device.

    Attributes:
        name: as the driver gives it, "Orin" or "NVIDIA H200".
        compute_capability: "8.7".
        is_integrated: it shares the memory of the CPU, as on every Jetson.
        driver: newest CUDA version that the driver serves, "12.6".
    """

    name: str
    compute_capability: str
    is_integrated: bool
    driver: str


def cuda_runtime() -> Any:
    """The module of CUDA's runtime calls. Raises BundleError if there is none."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            from cuda import cudart as runtime  # before cuda-python 12.8
        except ImportError as error:
            raise BundleError(
                f"CUDA for Python cannot be imported ({error}): pip install 'cuda-bindings==12.*', "
                f"or 13.* where nvidia-smi shows CUDA 13"
            ) from None
    return runtime


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the CUDA runtime.

    Returns:
        What it returns behind its status: nothing, a value, or a tuple of values.

    Raises:
        CudaError: the status is not success.
    """
    status, *values = function(*arguments)
    if status != 0:
        raise CudaError(f"{function.__name__} gave {status.name} ({int(status)})")
    return values[0] if len(values) == 1 else tuple(values) or None


def find_device(cuda: Any) -> Device:
    """The current CUDA device; touches nothing if there is no driver.

    Raises:
        BundleError: no driver, a driver too old for the runtime, or no device.
    """
    try:
        driver = call(cuda.cudaDriverGetVersion)
        runtime = call(cuda.cudaRuntimeGetVersion)
        status, count = cuda.cudaGetDeviceCount()
    except (CudaError, RuntimeError) as error:  # older cuda-python raises without libcuda
        raise BundleError(f"no NVIDIA driver ({error}): {_driver_remedy()}") from None
    if driver == 0:
        raise BundleError(f"no NVIDIA driver (libcuda was not found): {_driver_remedy()}")
    if status == cuda.cudaError_t.cudaErrorInsufficientDriver:
        raise BundleError(
            f"the NVIDIA driver serves CUDA up to {_version(driver)}, cuda-bindings brings "
            f"{_version(runtime)}: pip install 'cuda-bindings=={driver // 1000}.*', or update the "
            f"driver"
        )
    if status != 0 or not count:
        raise BundleError(
            f"no CUDA device ({getattr(status, 'name', status)}, {count or 0} found): is a GPU "
            f"present, does CUDA_VISIBLE_DEVICES hide it, may this user open /dev/nvidia*?"
        )
    try:
        facts = call(cuda.cudaGetDeviceProperties, call(cuda.cudaGetDevice))
    except CudaError as error:
        raise BundleError(f"the CUDA device does not answer ({error}): see dmesg") from None
    name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
    return Device(
        name=name.rstrip("\0"),
        compute_capability=f"{facts.major}.{facts.minor}",
        is_integrated=bool(facts.integrated),
        driver=_version(driver),
    )


def is_jetson() -> bool:
    """Whether this is a Jetson, where TensorRT comes with JetPack and not from PyPI."""
    return platform.machine() == "aarch64" and _JETSON_RELEASE.exists()


def _driver_remedy() -> str:
    if is_jetson():
        return "on a Jetson it is part of JetPack; in a container start that with --runtime nvidia"
    return "install one (nvidia-smi must work), or use backend onnx"


def _version(number: int) -> str:
    """12060 is CUDA 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"
