"""From a bundle to a policy that may act: opened by a backend, verified, and if asked, chosen.

`verify` is the one check that export, compile, the node and the tests call. `auto` opens
every backend that is there, drops those that fail it, and takes the fastest at the
contract's own rate: in a hot loop all caches are warm, on a robot none is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from iql_ros.backends.numpy import open_numpy
from iql_ros.backends.onnx import open_onnx, open_onnx_cuda
from iql_ros.backends.tensorrt import Options, open_tensorrt
from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.golden import TOLERANCE, Policy, Verification, check_policy
from iql_ros.bundles.precision import TOLERANCES
from iql_ros.contract import Contract
from iql_ros.errors import BundleError

OpenBackend = Callable[[Bundle], Policy]

BACKENDS: dict[str, OpenBackend] = {
    "onnx": open_onnx,
    "onnx-cuda": open_onnx_cuda,
    "tensorrt": open_tensorrt,
    "tensorrt-fp16": partial(open_tensorrt, options=Options(precision="fp16")),
    "numpy": open_numpy,
}
"""Whatever can run a policy, by the name that parameter `backend` gives it."""

COARSE = {"tensorrt-fp16": TOLERANCES["fp16"]}
"""Backends that may differ more from the golden actions. Only the user can want that."""

TRIGGERED_HZ = 100.0  # a contract that ticks by a topic does not say how often that comes
LONGEST_PERIOD_S = 0.05
PACED_CALLS = 25
WORST_SHARE = 0.95

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A policy that has shown that it runs as trained.

    Attributes:
        policy: see `iql_ros.bundles.golden.Policy`.
        backend: its name.
        verification: what it has shown.
        reason: why this backend, in words.
    """

    policy: Policy
    backend: str
    verification: Verification
    reason: str


def verify(
    bundle: Bundle | str | Path,
    open_backend: OpenBackend = open_onnx,
    *,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Checks that a bundle is whole and that a backend runs its policy as trained.

    Args:
        bundle: a loaded bundle, or a folder.
        open_backend: opens the bundle into a policy; it checks the graph's signature.
        tolerance: largest difference from the golden actions, as a share of their range.

    Raises:
        BundleError: naming the file, the value, the rule and the fix.
    """
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    return _check(bundle, open_backend(bundle), tolerance)


def open_policy(bundle: Bundle | str | Path, backend: str = "auto") -> Opened:
    """Opens a bundle into a verified policy.

    Args:
        bundle: a loaded bundle, or a folder.
        backend: a name in `BACKENDS`, or "auto" for the fastest of those that pass.

    Raises:
        BundleError: the bundle fails verification, or every backend does.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise BundleError(
            f"backend {backend!r} is not known: give auto or one of {', '.join(BACKENDS)}"
        )
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    if backend == "auto":
        return _fastest(bundle)
    policy = BACKENDS[backend](bundle)
    shown = _check(bundle, policy, COARSE.get(backend, TOLERANCE))
    return Opened(policy, backend, shown, "it was asked for")


def paced_latencies_us(policy: Policy, bundle: Bundle, calls: int = PACED_CALLS) -> list[float]:
    """Times `policy` on golden observations, one call at each tick of the contract's rate.

    Returns:
        Microseconds of each call, sorted.
    """
    period_s = tick_period_s(bundle.contract)
    observations = bundle.golden.observations
    spent = []
    deadline = time.perf_counter()
    for observation in observations[np.arange(calls) % len(observations)]:
        deadline += period_s
        time.sleep(max(0.0, deadline - time.perf_counter()))
        started = time.perf_counter()
        policy(observation)
        spent.append(1e6 * (time.perf_counter() - started))
    return sorted(spent)


def tick_period_s(contract: Contract) -> float:
    """The pause between two measured calls: the contract's period, but at most 50 ms."""
    return min(LONGEST_PERIOD_S, 1.0 / (contract.tick.rate_hz or TRIGGERED_HZ))


def _fastest(bundle: Bundle) -> Opened:
    passed: dict[str, Opened] = {}
    failed: dict[str, BundleError] = {}
    for name in (name for name in BACKENDS if name not in COARSE):
        try:
            policy = BACKENDS[name](bundle)
        except BundleError as error:
            failed[name] = error
            logger.info("backend %s is not used: %s", name, error)
            continue
        try:
            shown = _check(bundle, policy, TOLERANCE)
        except BundleError as error:
            failed[name] = error
            logger.warning("backend %s fails verification and is not used: %s", name, error)
            continue
        passed[name] = Opened(policy, name, shown, "no other passes verification")
    if not passed:
        # What every backend says is about the bundle; the first is the one that exports verify.
        raise next(iter(failed.values()))
    if len(passed) == 1:
        return next(iter(passed.values()))
    worst_us = {
        name: float(np.quantile(paced_latencies_us(opened.policy, bundle), WORST_SHARE))
        for name, opened in passed.items()
    }
    figures = ", ".join(f"{name} {value:.0f} us" for name, value in worst_us.items())
    rate_hz = 1 / tick_period_s(bundle.contract)
    reason = f"fastest at {rate_hz:.0f} Hz, 95 % of calls within: {figures}"
    return replace(passed[min(worst_us, key=worst_us.__getitem__)], reason=reason)


def _check(bundle: Bundle, policy: Policy, tolerance: float) -> Verification:
    return check_policy(policy, bundle.golden, bundle.contract, bundle.digest, tolerance)
