"""TensorRT itself, on a GPU. Skipped, saying why, where either is missing.

What is measured goes to the file that IQL_ROS_GPU_REPORT names, one JSON object a line.
`tests/gpu/run.sh` runs this on a machine that has nothing but a folder of wheels.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from iql_ros.backends.cuda import call
from iql_ros.backends.engine_policy import TensorRtPolicy
from iql_ros.backends.engines import list_engines
from iql_ros.backends.tensorrt import Options, compile_bundle, open_tensorrt
from iql_ros.backends.tensorrt_machine import Machine, find_machine, is_typed
from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.golden import check_policy
from iql_ros.bundles.precision import TOLERANCES, Precision
from iql_ros.errors import BundleError
from tests.gpu.deep_bundle import write_deep_bundle

pytestmark = pytest.mark.gpu

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
NETS = {"256x256": (256, 256), "512x3": (512, 512, 512)}
CALLS = 2_000


@pytest.fixture(scope="module")
def machine() -> Machine:
    try:
        return find_machine()
    except BundleError as error:
        if os.environ.get("IQL_ROS_GPU_REQUIRED"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_deep_bundle(tmp_path_factory.mktemp("gpu") / "bundle")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(cache=tmp_path / "engines")


@pytest.fixture(scope="module")
def kept(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A cache that the tests share which do not ask how it was filled."""
    return Options(cache=tmp_path_factory.mktemp("kept") / "engines")


def supported(machine: Machine, precision: Precision) -> bool:
    if precision != "bf16":
        return True
    return is_typed(machine.trt) and float(machine.device.compute_capability) >= 8


def report(machine: Machine, **values: Any) -> None:
    values |= {"tensorrt": str(machine.trt.__version__), "device": machine.device.name}
    print(json.dumps(values))
    if os.environ.get("IQL_ROS_GPU_REPORT"):
        with open(os.environ["IQL_ROS_GPU_REPORT"], "a") as stream:
            stream.write(json.dumps(values) + "\n")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_gives_the_golden_actions_or_is_refused(
    machine: Machine, bundle: Bundle, options: Options, precision: Precision
) -> None:
    if not supported(machine, precision):
        with pytest.raises(BundleError, match=f"precision {precision} needs"):
            compile_bundle(bundle, replace(options, precision=precision))
        return
    refusal = ""
    try:
        compiled = compile_bundle(bundle, replace(options, precision=precision))
    except BundleError as error:
        refusal = str(error)
    if refusal:
        report(machine, test="parity", precision=precision, refused=refusal)
        assert precision in ("bf16", "int8"), "fp32 and fp16 must pass on this bundle"
        assert "is refused" in refusal
        return
    report(
        machine,
        test="parity",
        precision=precision,
        worst_error=compiled.verification.worst_error,
        tolerance=compiled.verification.tolerance,
        build_s=compiled.seconds,
        launch=compiled.launch,
    )


def test_float32_is_no_tf32(machine: Machine, bundle: Bundle, kept: Options) -> None:
    policy = open_tensorrt(bundle, kept)
    shown = check_policy(policy, bundle.golden, bundle.contract, bundle.digest, TOLERANCES["fp32"])
    assert shown.worst_error < 2e-5  # TF32 has the rounding of float16: 1e-4 and more


def test_copies_and_kernels_are_captured_as_one_graph(
    machine: Machine, bundle: Bundle, kept: Options
) -> None:
    policy = open_tensorrt(bundle, kept)
    assert (policy.step.launch, policy.step.why_plain) == ("graph", "")


def test_graph_plain_and_blocking_launches_agree(
    machine: Machine, bundle: Bundle, kept: Options
) -> None:
    graph, plain = open_tensorrt(bundle, kept), open_tensorrt(bundle, replace(kept, graph=False))
    blocked = open_tensorrt(bundle, replace(kept, wait="block"))
    assert plain.step.launch == "plain"
    for observation in bundle.golden.observations:
        expected = plain(observation)
        # TensorRT may add in another order from one launch to the next.
        assert np.allclose(graph(observation), expected, rtol=1e-5, atol=1e-6)
        assert np.allclose(blocked(observation), expected, rtol=1e-5, atol=1e-6)


def test_second_opening_takes_the_cached_engine(
    machine: Machine, bundle: Bundle, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        started = time.perf_counter()
        open_tensorrt(bundle, options)
        built = time.perf_counter()
        assert "building one" in caplog.text
        caplog.clear()
        open_tensorrt(bundle, options)
        hit_s = time.perf_counter() - built
        assert caplog.text == ""
    assert len(list_engines(options.cache or Path())) == 1
    report(machine, test="cache", build_and_open_s=built - started, hit_s=hit_s)
    assert hit_s < built - started


def test_timing_cache_is_taken_up(machine: Machine, bundle: Bundle, options: Options) -> None:
    first = compile_bundle(bundle, options)
    second = compile_bundle(bundle, options)
    assert list((options.cache or Path()).glob("*.timing"))
    report(machine, test="timing cache", first_s=first.seconds, second_s=second.seconds)


def test_altered_engine_is_built_anew(machine: Machine, bundle: Bundle, options: Options) -> None:
    path = compile_bundle(bundle, options).path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    check_policy(open_tensorrt(bundle, options), bundle.golden, bundle.contract, bundle.digest)


def test_policy_runs_in_another_thread_than_it_was_opened_in(
    machine: Machine, bundle: Bundle, kept: Options
) -> None:
    policy = open_tensorrt(bundle, kept)
    observation = bundle.golden.observations[0]
    actions: list[Any] = []
    thread = threading.Thread(target=lambda: actions.append(policy(observation)))
    thread.start()
    thread.join()
    assert np.allclose(actions, [policy(observation)], rtol=1e-5, atol=1e-6)


def test_closed_policies_give_their_memory_back(
    machine: Machine, bundle: Bundle, kept: Options
) -> None:
    policy = open_tensorrt(bundle, kept)
    free, _ = call(machine.cuda.cudaMemGetInfo)
    for _ in range(20):
        policy = open_tensorrt(bundle, kept)
    policy(bundle.golden.observations[0])
    left, _ = call(machine.cuda.cudaMemGetInfo)
    # The driver hands out 2 MB at a time; 20 policies that leak would take 20 such pieces.
    assert free - left < 20 << 20


def test_progress_is_told_by_those_that_can(
    machine: Machine, bundle: Bundle, options: Options
) -> None:
    told: list[tuple[str, int, int]] = []
    compile_bundle(bundle, options, lambda *step: told.append(step))
    assert bool(told) == hasattr(machine.trt, "IProgressMonitor")
    assert all(0 <= done <= steps for _, done, steps in told)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_latency(
    machine: Machine, tmp_path: Path, options: Options, net: str, precision: Precision
) -> None:
    bundle = write_deep_bundle(tmp_path / "bundle", NETS[net])
    options = replace(options, precision=precision)
    policies = {
        "graph spin": open_tensorrt(bundle, options),
        "graph block": open_tensorrt(bundle, replace(options, wait="block")),
        "plain spin": open_tensorrt(bundle, replace(options, graph=False)),
    }
    figures = {name: hot_latency_us(policy, bundle) for name, policy in policies.items()}
    report(machine, test="latency", net=net, precision=precision, **figures)
    # A robot at 500 Hz has 2 ms; a call that takes half of it is no backend for it.
    assert figures["graph spin"]["p50_us"] < 1000


def test_unsupported_operator_is_named(machine: Machine, bundle: Bundle, options: Options) -> None:
    model = onnx.load_model_from_string(bundle.policy)
    model.graph.node[3].op_type = "Frobnicate"
    other = replace(bundle, policy=model.SerializeToString())
    with pytest.raises(BundleError, match=r"not support operator 'Frobnicate': .*\(node 3 of"):
        compile_bundle(other, options)


def test_device_without_memory_is_named(machine: Machine, bundle: Bundle, options: Options) -> None:
    cuda, held = machine.cuda, []
    size = 1 << 36
    try:
        while size > 1 << 20:  # all that is there, in ever smaller pieces
            status, pointer = cuda.cudaMalloc(size)
            if status == 0:
                held.append(pointer)
            else:
                cuda.cudaGetLastError()
                size //= 2
        with pytest.raises(BundleError, match=r"memory|cudaErrorMemoryAllocation"):
            compile_bundle(bundle, options)
    finally:
        for pointer in held:
            cuda.cudaFree(pointer)


@pytest.mark.parametrize("folder", os.environ.get("IQL_ROS_GPU_BUNDLES", "").split(":"))
def test_bundle_of_your_own(machine: Machine, options: Options, folder: str) -> None:
    if not folder:
        pytest.skip("IQL_ROS_GPU_BUNDLES names no bundles")
    bundle = load_bundle(folder)
    for precision in PRECISIONS[:2]:
        chosen = replace(options, precision=precision)
        try:
            compiled = compile_bundle(bundle, chosen)
        except BundleError as error:
            report(machine, test="bundle", bundle=folder, precision=precision, refused=str(error))
            # What a policy that chooses makes of a rounding is its own; float32 must do.
            assert precision == "fp16"
            continue
        latency = hot_latency_us(open_tensorrt(bundle, chosen), bundle)
        report(
            machine,
            test="bundle",
            bundle=folder,
            precision=precision,
            worst_error=compiled.verification.worst_error,
            build_s=compiled.seconds,
            launch=compiled.launch,
            **latency,
        )


def hot_latency_us(policy: TensorRtPolicy, bundle: Bundle) -> dict[str, float]:
    spent = []
    for i in range(CALLS):
        observation = bundle.golden.observations[i % 256]
        started = time.perf_counter_ns()
        policy(observation)
        spent.append(time.perf_counter_ns() - started)
    p50, p99 = np.quantile(spent[CALLS // 10 :], [0.5, 0.99]) / 1e3
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
