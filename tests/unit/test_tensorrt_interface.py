"""The code around TensorRT, against its interface: see tests/tensorrt_double.py.

No TensorRT runs here, and no GPU: tests/gpu/test_tensorrt.py is for that.
"""

from __future__ import annotations

import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from iql_ros.backends.cuda import cuda_runtime, find_device
from iql_ros.backends.engines import list_engines
from iql_ros.backends.tensorrt import Options, compile_bundle, open_tensorrt
from iql_ros.bundle import Bundle
from iql_ros.bundles.golden import Golden, check_policy
from iql_ros.errors import BundleError
from tests.cuda_double import CudaDouble, cudaError_t
from tests.small_bundle import Mlp, write_bundle
from tests.tensorrt_double import UNKNOWN, UNKNOWN_TYPE, VERSIONS, install_doubles, tensorrt_double

Install = Callable[..., CudaDouble]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("tensorrt") / "bundle")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(cache=tmp_path / "engines")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts the doubles where the modules would be imported from; afterwards nothing is held."""
    made: list[CudaDouble] = []

    def install(*arguments: Any, **options: Any) -> CudaDouble:
        made.append(install_doubles(monkeypatch, *arguments, **options))
        return made[-1]

    yield install
    for cuda in made:
        assert cuda.live == {}, "device memory, streams or graphs were not freed"


def golden_check(policy: Any, bundle: Bundle, tolerance: float = 1e-6) -> None:
    check_policy(policy, bundle.golden, bundle.contract, bundle.digest, tolerance)


# -- every version -----------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("integrated", [False, True])
def test_every_version_builds_checks_and_runs(
    install: Install, bundle: Bundle, options: Options, version: str, integrated: bool
) -> None:
    cuda = install(version, integrated=integrated)
    compiled = compile_bundle(bundle, options)
    assert compiled.verification.pairs == 256
    policy = open_tensorrt(bundle, options)
    golden_check(policy, bundle)
    assert policy.step.launch == "graph"
    assert cuda.launches > 256


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-2), ("int8", 3e-2)])
def test_precision_is_written_into_the_graph(
    install: Install,
    bundle: Bundle,
    options: Options,
    version: str,
    precision: Any,
    tolerance: float,
) -> None:
    install(version)
    compiled = compile_bundle(bundle, replace(options, precision=precision))
    assert 1e-6 < compiled.verification.worst_error < compiled.verification.tolerance == tolerance


def test_bfloat16_is_refused_before_tensorrt_10(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install("8.6.2")
    with pytest.raises(BundleError, match=r"precision bf16 needs TensorRT 10, here is 8.6.2: use"):
        compile_bundle(bundle, replace(options, precision="bf16"))


def test_progress_is_told_from_tensorrt_10_on(
    install: Install, bundle: Bundle, options: Options
) -> None:
    told: list[tuple[str, int, int]] = []
    for version in ("8.6.2", "10.3.0"):
        install(version)
        compile_bundle(bundle, options, lambda *step: told.append(step))
    assert told == [("Building engine", done, 2) for done in (0, 1, 2, 2)]


def test_tensorrt_older_than_its_named_tensors_is_refused(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install("8.4.3")
    with pytest.raises(BundleError, match=r"TensorRT is 8.4.3, 8.5 or later is needed"):
        open_tensorrt(bundle, options)


# -- the cache ---------------------------------------------------------------------------


def test_second_opening_builds_nothing(
    install: Install, bundle: Bundle, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    with caplog.at_level(logging.WARNING):
        open_tensorrt(bundle, options)
        assert "building one" in caplog.text
        caplog.clear()
        install(fault="a build must not be tried")
        golden_check(open_tensorrt(bundle, options), bundle)
        assert caplog.text == ""


@pytest.mark.parametrize("changed", [{"workspace_mb": 64}, {"precision": "fp16"}])
def test_other_build_options_build_anew(
    install: Install, bundle: Bundle, options: Options, changed: Any
) -> None:
    install()
    open_tensorrt(bundle, options)
    open_tensorrt(bundle, replace(options, **changed))
    assert len(list_engines(options.cache or Path())) == 2


def test_updated_tensorrt_builds_anew(install: Install, bundle: Bundle, options: Options) -> None:
    for version in VERSIONS:
        install(version)
        golden_check(open_tensorrt(bundle, options), bundle)
    assert len(list_engines(options.cache or Path())) == len(VERSIONS)


def test_engine_that_fails_the_golden_pairs_is_not_kept(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install()
    observations, actions = bundle.golden.observations, bundle.golden.actions
    shifted = Golden(observations, actions * np.float32(0.9))
    with pytest.raises(BundleError, match=r"fp32 engine of .* is refused: action .*onnx"):
        compile_bundle(replace(bundle, golden=shifted), options)
    assert list_engines(options.cache or Path()) == []


def test_cached_engine_of_another_graph_is_not_this_policy(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install()
    open_tensorrt(bundle, options)
    other = replace(bundle, policy=Mlp.drawn(1).graph(), golden=Mlp.drawn(1).golden())
    golden_check(open_tensorrt(other, options), other)


def test_engine_that_the_runtime_refuses_is_named(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install()
    compile_bundle(bundle, options)
    # The same version by name, and yet another build of it.
    cuda = install()
    sys.modules["tensorrt"] = double = tensorrt_double("10.3.1", cuda)
    double.__version__ = "10.3.0"
    with pytest.raises(
        BundleError, match=r"refuses the engine .*plan file.*compile builds another"
    ):
        open_tensorrt(bundle, options)


# -- the step ----------------------------------------------------------------------------


def test_failed_capture_falls_back_to_plain_launches(
    install: Install, bundle: Bundle, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = install(captures=False)
    policy = open_tensorrt(bundle, options)
    golden_check(policy, bundle)
    assert (policy.step.launch, cuda.launches) == ("plain", 0)
    assert "no CUDA graph" in caplog.text
    assert "cudaErrorStreamCaptureInvalidated" in caplog.text


def test_graph_that_leaves_out_a_copy_is_found_out(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install(forgets_copies=True)
    policy = open_tensorrt(bundle, options)
    assert policy.step.launch == "plain"
    assert "computes other values" in policy.step.why_plain
    golden_check(policy, bundle)


def test_graph_can_be_declined(install: Install, bundle: Bundle, options: Options) -> None:
    cuda = install()
    policy = open_tensorrt(bundle, replace(options, graph=False))
    golden_check(policy, bundle)
    assert (policy.step.launch, policy.step.why_plain, cuda.launches) == ("plain", "", 0)


@pytest.mark.parametrize(("wait", "blocks"), [("spin", False), ("block", True)])
def test_wait_is_spin_or_block(
    install: Install, bundle: Bundle, options: Options, wait: Any, blocks: bool
) -> None:
    cuda = install()
    open_tensorrt(bundle, replace(options, wait=wait))
    assert {bool(flags & cuda.cudaEventBlockingSync) for flags in cuda.event_flags} == {blocks}


def test_action_stays_as_it_was_after_the_next_call(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install()
    policy = open_tensorrt(bundle, options)
    first = policy(np.ones(4))
    kept = first.copy()
    policy(-np.ones(4))
    assert np.array_equal(first, kept)


def test_calls_leave_no_memory_behind(install: Install, bundle: Bundle, options: Options) -> None:
    install()
    policy = open_tensorrt(bundle, options)
    observation = np.zeros(4)
    policy(observation)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5_000):
            policy(observation)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 25_000  # 5,000 leaked objects take at least 80 kB


# -- what a user can meet ----------------------------------------------------------------


def test_nothing_is_asked_of_tensorrt_without_a_device(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install(count=0)
    sys.modules["tensorrt"] = None  # type: ignore[assignment]  # its import would raise
    with pytest.raises(BundleError, match=r"no CUDA device .cudaErrorNoDevice, 0 found"):
        open_tensorrt(bundle, options)


def test_missing_driver_is_named(install: Install) -> None:
    with pytest.raises(BundleError, match=r"no NVIDIA driver .libcuda was not found.: install"):
        find_device(install(driver=0))


def test_driver_too_old_for_the_runtime_is_named(install: Install) -> None:
    with pytest.raises(BundleError, match=r"serves CUDA up to 11.4, .* 12.6: .*bindings==11"):
        find_device(install(driver=11040))


def test_older_cuda_python_that_raises_without_a_driver_is_named() -> None:
    def missing() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")  # seen with cuda-python 12.3

    ok = cudaError_t.cudaSuccess
    cuda = SimpleNamespace(cudaDriverGetVersion=missing, cudaRuntimeGetVersion=lambda: (ok, 12030))
    with pytest.raises(BundleError, match=r"no NVIDIA driver \(Failed to dlopen libcuda"):
        find_device(cuda)


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BundleError, match="pip install 'cuda-bindings"):
        cuda_runtime()


def test_missing_tensorrt_is_named(
    install: Install, bundle: Bundle, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BundleError, match=r"TensorRT cannot be imported .*: pip install tensorrt"):
        open_tensorrt(bundle, options)


def with_operator(bundle: Bundle, name: str) -> Bundle:
    """The bundle with another operator at node 3."""
    model = onnx.load_model_from_string(bundle.policy)
    model.graph.node[3].op_type = name
    return replace(bundle, policy=model.SerializeToString())


@pytest.mark.parametrize("version", ["8.6.2", "11.1.0"])
def test_unsupported_operator_is_named(
    install: Install, bundle: Bundle, options: Options, version: str
) -> None:
    install(version)
    with pytest.raises(BundleError, match=rf"not support operator '{UNKNOWN}': .*\(node 3 of"):
        compile_bundle(with_operator(bundle, UNKNOWN), options)


@pytest.mark.parametrize("version", VERSIONS)
def test_operator_that_is_supported_but_not_of_this_type_is_named(
    install: Install, bundle: Bundle, options: Options, version: str
) -> None:
    install(version)
    with pytest.raises(BundleError, match=rf"not support operator '{UNKNOWN_TYPE}': .*\(node 3 of"):
        compile_bundle(with_operator(bundle, UNKNOWN_TYPE), options)


def test_graph_that_cannot_be_read_is_refused(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install()
    with pytest.raises(BundleError, match=r"cannot read policy.onnx .*export the bundle again"):
        compile_bundle(replace(bundle, policy=b"no graph"), options)


def test_build_without_memory_says_so(install: Install, bundle: Bundle, options: Options) -> None:
    install(fault="[virtualMemoryBuffer.cpp::resizePhysical] OutOfMemory (Requested size was 9)")
    with pytest.raises(BundleError, match=r"ran out of memory while building .*was 256 MB"):
        compile_bundle(bundle, options)


def test_build_that_fails_otherwise_tells_what_tensorrt_said(
    install: Install, bundle: Bundle, options: Options
) -> None:
    install(fault="Could not find any implementation for node {ForeignNode}")
    with pytest.raises(BundleError, match=r"failed while building .*ForeignNode.*onnx"):
        compile_bundle(bundle, options)


@pytest.mark.parametrize("graph", [False, True])
def test_engine_that_does_not_run_is_found_out_while_opening(
    install: Install,
    bundle: Bundle,
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    graph: bool,
) -> None:
    cuda = install()
    compile_bundle(bundle, options)
    monkeypatch.setattr(cuda, "put", lambda kind, work: None)  # nothing arrives
    broken = (cudaError_t.cudaErrorInvalidValue,)
    monkeypatch.setattr(cuda, "cudaEventSynchronize", lambda event: broken)
    with pytest.raises(BundleError, match=r"does not run on Double \(.*cudaErrorInvalidValue"):
        open_tensorrt(bundle, replace(options, graph=graph))


def test_buffers_without_memory_say_so(install: Install, bundle: Bundle, options: Options) -> None:
    install(memory=4)
    with pytest.raises(BundleError, match=r"cudaErrorMemoryAllocation.*stop what else uses"):
        compile_bundle(bundle, options)


def test_bfloat16_is_refused_on_a_device_without_it(
    install: Install, bundle: Bundle, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SimpleNamespace(name=b"Xavier\0", major=7, minor=2, integrated=1)
    cuda = install(integrated=True)
    monkeypatch.setattr(cuda, "cudaGetDeviceProperties", lambda device: (cudaError_t(0), old))
    with pytest.raises(BundleError, match=r"bf16 needs compute capability 8.0, Xavier has 7.2"):
        compile_bundle(bundle, replace(options, precision="bf16"))


def test_tensorrt_that_is_too_new_for_the_driver_is_named(
    install: Install, bundle: Bundle, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("11.1.0")

    def null(logger: Any) -> None:  # as 8.6.0 did it
        logger.log(sys.modules["tensorrt"].ILogger.WARNING, "CUDA initialization failure: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", null)
    with pytest.raises(
        BundleError,
        match=r"11.1.0 does not start on Double \(CUDA init.* 35\): .* up to 12.6, .*tensorrt-cu12",
    ):
        open_tensorrt(bundle, options)


def test_tensorrt_that_gets_no_memory_to_start_with_says_so(
    install: Install, bundle: Bundle, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("8.6.2")

    def null(logger: Any) -> None:
        logger.log(sys.modules["tensorrt"].ILogger.ERROR, "Cuda Runtime (out of memory)")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", null)
    with pytest.raises(BundleError, match=r"out of memory while TensorRT started .*onnx"):
        open_tensorrt(bundle, options)


def test_whatever_the_bindings_raise_leaves_the_way_to_the_next_backend(
    install: Install, bundle: Bundle, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()

    def broken(logger: Any) -> None:
        raise RuntimeError("out of the blue")

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", broken)
    with pytest.raises(BundleError, match=r"TensorRT cannot be used \(RuntimeError: out of"):
        open_tensorrt(bundle, options)
