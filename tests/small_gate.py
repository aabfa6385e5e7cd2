"""Gate records for the toy bundle, made without a simulation: the format alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import (
    Criterion,
    GateRecord,
    Named,
    ScenarioRecord,
    bind,
    verdict_of,
    write_gate,
)
from iql_ros.statistics import wilson_interval


def success_rate(count: int, of: int, bound: float = 0.9) -> Criterion:
    """The criterion of a success rate's lower bound."""
    interval = wilson_interval(count, of)
    return Criterion(
        name="success rate",
        rule="at_least",
        bound=bound,
        judged=interval[0],
        count=count,
        of=of,
        interval=interval,
        passed=interval[0] >= bound,
    )


def record_of(bundle: Bundle, *, successes: int = 100, **changes: Any) -> GateRecord:
    """What a suite of one scenario with 100 episodes would leave."""
    scenarios = (
        ScenarioRecord(
            name="nominal",
            episodes=100,
            failing=tuple(range(successes, 100)),
            criteria=(success_rate(successes, 100),),
        ),
    )
    return GateRecord(
        bundle_digest=bundle.digest,
        verdict=verdict_of(scenarios),
        seed=0,
        bound_to=bind(
            bundle,
            suite=Named(name="toy", sha256="1" * 64),
            world=Named(name="toy", sha256="2" * 64),
            software={"mujoco": "3.3.0"},
            backend="onnx",
        ).model_copy(update=changes),
        scenarios=scenarios,
    )


def pass_gate(bundle: Bundle) -> Path:
    """Writes a record that passes; returns the bundle's folder."""
    write_gate(bundle, record_of(bundle))
    return bundle.path
