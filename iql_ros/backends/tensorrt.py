"""Runs a policy with TensorRT: an engine built on this machine, checked, cached, launched at once.

An engine is never shipped. It is built here from the bundle's graph, must give the golden
actions before it may be kept, and is found again by all that it depends on (`engines.py`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from iql_ros.backends.cuda_step import Wait
from iql_ros.backends.engine_build import Progress, build_engine
from iql_ros.backends.engine_policy import TensorRtPolicy
from iql_ros.backends.engines import (
    Engine,
    EngineKey,
    default_cache,
    find_engine,
    open_cache,
    read_timing,
    store_engine,
    timing_cache,
    write_timing,
)
from iql_ros.backends.tensorrt_machine import Machine, check_precision, find_machine, is_typed
from iql_ros.bundle import Bundle
from iql_ros.bundles.format import GOLDEN_FILE
from iql_ros.bundles.golden import MIN_PAIRS, Verification, check_policy
from iql_ros.bundles.noise import noise_rows
from iql_ros.bundles.precision import RECIPE, TOLERANCES, Precision, at_precision
from iql_ros.errors import BundleError

logger = logging.getLogger(__name__)

_RECIPE = f"recipe={RECIPE}"


@dataclass(frozen=True)
class Options:
    """How to build an engine, and how to run it.

    Attributes:
        precision: of the matrix products; what is in SI units stays float32.
        workspace_mb: device memory that a tactic may use as scratch.
        cache: folder of engines, by default the user's own.
        graph: launch copies and kernels as one CUDA graph.
        wait: "spin" answers soonest, "block" leaves the core to others.
    """

    precision: Precision = "fp32"
    workspace_mb: int = 256
    cache: Path | None = None
    graph: bool = True
    wait: Wait = "spin"


@dataclass(frozen=True)
class Compiled:
    """An engine that has shown that it runs as trained, and where it lies."""

    path: Path
    key: EngineKey
    seconds: float
    verification: Verification
    launch: str


def open_tensorrt(bundle: Bundle, options: Options | None = None) -> TensorRtPolicy:
    """Opens a bundle's engine; builds, checks and keeps one if none is cached.

    Raises:
        BundleError: no device, no TensorRT, or the engine cannot be built or is not the policy.
    """
    options = Options() if options is None else options
    with _only_bundle_errors():
        machine = find_machine()
        key = engine_key(bundle, machine, options)
        engine = find_engine(_folder(options), key)
        if engine is not None:
            return _open(machine, engine.data, bundle, options)
        logger.warning(
            "no %s engine of %s for TensorRT %s on %s is cached: building one, seconds to minutes",
            key.precision,
            bundle.path,
            key.tensorrt,
            key.device,
        )
        return _build(bundle, machine, key, options, None)[1]


def compile_bundle(
    bundle: Bundle, options: Options | None = None, progress: Progress | None = None
) -> Compiled:
    """Builds an engine anew, checks it against the golden pairs, and puts it into the cache.

    Raises:
        BundleError: as `open_tensorrt`; an engine that fails is not kept.
    """
    options = Options() if options is None else options
    with _only_bundle_errors():
        machine = find_machine()
        key = engine_key(bundle, machine, options)
        return _build(bundle, machine, key, options, progress)[0]


def engine_key(bundle: Bundle, machine: Machine, options: Options) -> EngineKey:
    """All that this machine's engine of a bundle depends on."""
    flags = [_RECIPE, f"workspace={options.workspace_mb}MB", "tf32=off"]
    flags.append("typed" if is_typed(machine.trt) else "constrained cublas=off")
    if options.precision == "int8":  # the golden pairs set its ranges
        flags.append(f"calibration={bundle.manifest.files[GOLDEN_FILE].sha256}")
    return EngineKey(
        policy_sha256=hashlib.sha256(bundle.policy).hexdigest(),
        precision=options.precision,
        flags=" ".join(flags),
        tensorrt=str(machine.trt.__version__),
        compute_capability=machine.device.compute_capability,
        device=machine.device.name,
    )


def misfit(key: EngineKey, machine: Machine) -> str:
    """Why an engine is not used on this machine by this version of iql_ros; empty if it is."""
    if _RECIPE not in key.flags.split():
        return f"built by another version of iql_ros ({key.flags}, here is {_RECIPE})"
    return key.misfit(str(machine.trt.__version__), machine.device)


@contextmanager
def _only_bundle_errors() -> Iterator[None]:
    """Whatever the bindings or the disk raise must leave the way free for the next backend."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(
            f"TensorRT cannot be used ({type(error).__name__}: {error}): use backend onnx"
        ) from error


def _open(machine: Machine, data: bytes, bundle: Bundle, options: Options) -> TensorRtPolicy:
    return TensorRtPolicy(machine, data, bundle, graph=options.graph, wait=options.wait)


def _folder(options: Options) -> Path:
    return default_cache() if options.cache is None else options.cache


def _build(
    bundle: Bundle,
    machine: Machine,
    key: EngineKey,
    options: Options,
    progress: Progress | None,
) -> tuple[Compiled, TensorRtPolicy]:
    check_precision(machine.trt, machine.device, options.precision)
    folder = open_cache(_folder(options))  # refused before the build, not after
    # The recorded states are the last of the golden pairs; extremes would set int8's ranges.
    states = bundle.golden.observations[-(MIN_PAIRS // 2) :]
    feeds = {"observation": states}
    if bundle.manifest.io.noise is not None:
        feeds["noise"] = noise_rows(bundle.manifest.io.noise, states)
    timing = timing_cache(folder, key.tensorrt, machine.device)
    built = build_engine(
        machine,
        at_precision(bundle.policy, options.precision, feeds),
        precision=options.precision,
        workspace_mb=options.workspace_mb,
        timing=read_timing(timing),
        progress=progress,
    )
    policy = _open(machine, built.engine, bundle, options)
    shown = _verify(policy, bundle, options.precision)
    facts = {
        "bundle": str(bundle.path),
        "bundle_digest": bundle.digest,
        "build_s": round(built.seconds, 2),
        "verification": asdict(shown),
        "launch": policy.step.launch,
    }
    path = store_engine(folder, Engine(key, built.engine, facts))
    write_timing(timing, built.timing)
    return Compiled(path, key, built.seconds, shown, policy.step.launch), policy


def _verify(policy: TensorRtPolicy, bundle: Bundle, precision: Precision) -> Verification:
    tolerance = TOLERANCES[precision]
    try:
        return check_policy(policy, bundle.golden, bundle.contract, bundle.digest, tolerance)
    except BundleError as error:
        remedy = "use backend onnx" if precision == "fp32" else "compile with precision fp32"
        raise BundleError(
            f"the {precision} engine of {bundle.path} is refused: {error}; {remedy}"
        ) from None
