from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from iql_ros import policies
from iql_ros.backends.numpy import open_numpy
from iql_ros.backends.onnx import open_onnx
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.bundles.golden import Policy
from iql_ros.errors import BundleError
from iql_ros.policies import OpenBackend, open_policy
from tests.small_bundle import CONTRACT, Mlp, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("backends") / "bundle")


@pytest.fixture(scope="module", params=["onnx", "numpy"])
def policy(bundle: Bundle, request: pytest.FixtureRequest) -> Policy:
    return open_policy(bundle, request.param).policy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_are_those_of_the_numpy_oracle(policy: Policy, dtype: type) -> None:
    observations = np.random.default_rng(3).normal(size=(50, 4)).astype(dtype)
    actions = np.stack([policy(observation) for observation in observations])
    assert actions.dtype == np.float32
    # Two float32 implementations of a 16-wide layer agree to a few units in the last place.
    assert np.allclose(actions, Mlp.drawn(0)(observations.astype(np.float32)), atol=1e-6)


def test_an_action_stays_as_it_was_after_the_next_call(policy: Policy) -> None:
    first = policy(np.ones(4))
    kept = first.copy()
    policy(-np.ones(4))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("component", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_value_that_is_not_finite_in_float32_is_refused(
    policy: Policy, component: int, value: float
) -> None:
    observation = np.zeros(4)
    observation[component] = value
    assert np.isnan(policy(observation)).all()
    assert np.isfinite(policy(np.zeros(4))).all()


def test_largest_float32_is_no_refusal(policy: Policy) -> None:
    # Every weight but one path cancels or saturates; what counts is that it is not refused.
    observation = np.zeros(4, np.float32)
    observation[0] = 1e30
    assert np.isfinite(policy(observation)).all()


@pytest.mark.parametrize("shape", [(3,), (1, 4), (1,), ()])
def test_observation_of_another_shape_is_named(policy: Policy, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(4,\)"):
        policy(np.zeros(shape))


def test_calls_leave_no_memory_behind(policy: Policy) -> None:
    observation = np.zeros(4)
    policy(observation)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20_000):
            policy(observation)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (
        after - before < 100_000
    )  # 20,000 leaked objects take at least 320 kB; other threads, some


def test_auto_is_the_fastest_that_passes_and_says_why(bundle: Bundle) -> None:
    opened = open_policy(bundle.path)
    assert opened.backend in ("onnx", "numpy")
    assert re.fullmatch(
        r"fastest at 20 Hz, 95 % of calls within: onnx \d+ us, numpy \d+ us", opened.reason
    )
    assert np.allclose(opened.policy(np.zeros(4)), Mlp.drawn(0)(np.zeros((1, 4)))[0])


def test_auto_passes_over_a_backend_that_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_wrong(bundle: Bundle) -> Policy:
        return lambda observation: np.full(2, 0.1, np.float32)

    monkeypatch.setattr(policies, "BACKENDS", {"wrong": open_wrong, "onnx": open_onnx})
    with caplog.at_level("WARNING"):
        opened = open_policy(bundle)
    assert (opened.backend, opened.reason) == ("onnx", "no other passes verification")
    assert "backend wrong fails verification and is not used" in caplog.text


def test_auto_without_any_backend_says_what_the_first_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_absent(bundle: Bundle) -> Policy:
        raise BundleError("no such device")

    monkeypatch.setattr(policies, "BACKENDS", {"absent": open_absent})
    with pytest.raises(BundleError, match="no such device"):
        open_policy(bundle)


def test_onnx_runtime_without_cuda_says_what_it_has(bundle: Bundle) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BundleError, match=r"here has no CUDA .*onnxruntime-gpu"):
        open_policy(bundle, "onnx-cuda")


def test_unknown_backend_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="backend 'abacus' is not known: give auto or one"):
        open_policy(bundle, "abacus")


@pytest.mark.parametrize("open_backend", [open_onnx, open_numpy])
@pytest.mark.parametrize(
    ("graph", "rule"),
    [
        (Mlp.drawn(0).graph(input_name="obs"), r"input is \[\('obs', .* the contract asks for"),
        (Mlp.drawn(0).graph(observations=3), r"input is \[\('observation', .*\(1, 3\)\)\]"),
        (Mlp.drawn(0).graph({}), "property iql_ros.contract_digest is None"),
        (
            Mlp.drawn(0).graph(
                {**graph_metadata(CONTRACT), "iql_ros.action_names": '["wz", "vx"]'}
            ),
            r"property iql_ros.action_names is '\[\"wz\", \"vx\"\]'",
        ),
        (
            Mlp.drawn(0).graph().replace(b"iql_ros.action", b"iql_ros.\xffction"),
            "is not text|property iql_ros.action_names is None",
        ),
        (b"no graph", "(ONNX Runtime|onnx) .* refuses the graph"),
    ],
)
def test_graph_that_does_not_fit_the_contract_is_refused(
    bundle: Bundle, graph: bytes, rule: str, open_backend: OpenBackend
) -> None:
    with pytest.raises(BundleError, match=rule):
        open_backend(replace(bundle, policy=graph))


def test_importing_a_bundle_imports_no_runtime() -> None:
    heavy = {"torch", "h5py", "onnx", "onnxruntime", "mujoco", "rclpy"}
    code = f"import sys, iql_ros.policies; print({heavy!r} & set(sys.modules) or 'none')"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "none"
