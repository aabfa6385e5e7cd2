"""Runs a policy with ONNX Runtime: on one CPU thread, or on a CUDA device.

For an actor of 256x256 a call on the CPU takes some 8 µs hot, of which 2 µs are spent in
Python here.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from iql_ros.backends.guard import GuardedInput, check_signature
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import POLICY_FILE
from iql_ros.errors import BundleError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_onnx(bundle: Bundle) -> OnnxPolicy:
    """Opens `policy.onnx` on one CPU thread, and checks that its signature is the contract's.

    Raises:
        BundleError: ONNX Runtime is missing, refuses the graph, or the signature differs.
    """
    return _open(bundle, [CPU])


def open_onnx_cuda(bundle: Bundle) -> OnnxPolicy:
    """The same on the first CUDA device; TF32 is off, so that float32 stays float32.

    Raises:
        BundleError: as `open_onnx`, or ONNX Runtime has no CUDA here.
    """
    return _open(bundle, [(CUDA, {"use_tf32": "0"})])


@final
class OnnxPolicy:
    """One step of the policy; see `iql_ros.bundles.golden.Policy`. Not for two threads at once."""

    def __init__(self, session: Any, bundle: Bundle) -> None:
        from onnxruntime import OrtValue

        self._input = GuardedInput(bundle)
        action = np.zeros((1, bundle.contract.action_size), np.float32)
        # An OrtValue made from an array is that array's memory; for a CUDA session the
        # runtime copies to the device and back around its run.
        binding = session.io_binding()
        for name, array in self._input.arrays.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_output("action", OrtValue.ortvalue_from_numpy(action))
        self._take = self._input.take
        self._run = session.run_with_iobinding
        self._binding = binding
        self._action: NDArray[np.float32] = action[0]

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The action (A,) for one observation (O,), in SI units; NaN refuses."""
        if not self._take(observation):
            return self._input.refusal()
        self._run(self._binding)
        return self._action.copy()


def _open(bundle: Bundle, providers: list[Any]) -> OnnxPolicy:
    where = bundle.path / POLICY_FILE
    session = _open_session(bundle.policy, str(where), providers)
    try:
        inputs, outputs = (
            [(node.name, node.type, tuple(node.shape)) for node in nodes]
            for nodes in (session.get_inputs(), session.get_outputs())
        )
        properties = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: a name is not text ({error}): export it again") from None
    check_signature(bundle, inputs, outputs, properties)
    return OnnxPolicy(session, bundle)


def _open_session(policy: bytes, where: str, providers: list[Any]) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BundleError(
            f"ONNX Runtime cannot be imported ({error}): pip install onnxruntime"
        ) from None
    if providers != [CPU] and CUDA not in ort.get_available_providers():
        raise BundleError(
            f"ONNX Runtime {ort.__version__} here has no CUDA (it has "
            f"{', '.join(ort.get_available_providers())}): pip install onnxruntime-gpu, "
            f"or use backend onnx"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # its errors arrive as exceptions as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        # Its fallback would print to stdout and try the same provider again.
        session = ort.InferenceSession(policy, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own errors have no common base but this
        raise BundleError(
            f"{where}: ONNX Runtime {ort.__version__} refuses the graph ({error}): "
            f"export the bundle again, or update onnxruntime"
        ) from None
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise BundleError(
            f"ONNX Runtime could not start {wanted} (it uses {', '.join(session.get_providers())}):"
            f" is there a CUDA device, and do driver and onnxruntime-gpu fit each other?"
        )
    return session
