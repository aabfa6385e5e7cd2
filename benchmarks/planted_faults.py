"""Faults that are planted into a good arm policy; the gate must catch each where it shows.

    python -m benchmarks.planted_faults BUNDLE [--quick]

Then the good policy runs the whole gate with 20 seeds, of which none may fail. The tests do the
same with few episodes and a scripted policy (tests/unit/test_planted_faults.py).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import progress, report
from iql_ros.bundle import load_bundle
from iql_ros.bundles.format import Support
from iql_ros.bundles.gate_record import ScenarioRecord
from iql_ros.contract import Contract
from iql_ros.controller import Controller
from iql_ros.policies import open_policy
from iql_ros.wire import make_types
from sim.gate import run_suite
from sim.scenarios import load_suite
from sim.verdict import judge_run

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SEEDS, QUICK_SEEDS = 20, 3
DEGREES = float(np.degrees(1.0))


@dataclass(frozen=True)
class Good:
    """A policy that passes, and what its controller needs."""

    contract: Contract
    policy: Policy
    support: Support | None = None


Make = Callable[[], Good]


def good_of(bundle: Path) -> Good:
    """Of a bundle."""
    loaded = load_bundle(bundle)
    return Good(loaded.contract, open_policy(loaded, "onnx").policy, loaded.manifest.support)


def controller(make: Make, fault: str | None = None) -> Controller:
    """The controller of a good policy with a fault in it, or without."""
    good = make()
    if fault is not None:
        good = FAULTS[fault](good)
    return Controller(
        good.contract,
        good.policy,
        make_types(good.contract.definitions),
        support=good.support,
        clock=lambda: 0.0,
    )


def sign_flipped(good: Good) -> Good:
    """All commands go the other way."""
    return Good(good.contract, lambda o: -good.policy(o), good.support)


def joints_reordered(good: Good) -> Good:
    """As trained on logs that listed the joints in another order."""
    order = np.arange(good.contract.observation_size)
    joints = good.contract.index("q")
    order[joints] = np.roll(order[joints], 1)
    return Good(good.contract, lambda o: good.policy(o[order]), good.support)


def weights_noised(good: Good) -> Good:
    """A layer's weights are off by as much as they are large."""
    size = good.contract.action_size
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    layer = np.eye(size, dtype=np.float32) + noise
    low = good.contract.action_low.astype(np.float32)
    high = good.contract.action_high.astype(np.float32)
    return Good(good.contract, lambda o: np.clip(layer @ good.policy(o), low, high), good.support)


def limits_off(good: Good) -> Good:
    """The contract has no limits and no slew to speak of."""
    wide = _changed(good.contract, lambda action: {"limits": [-1e3, 1e3], "slew": None})
    return Good(wide, good.policy, good.support)


def degrees(good: Good) -> Good:
    """Contract and policy say degrees where the machine takes radians."""

    def in_degrees(action: dict[str, Any]) -> dict[str, Any]:
        return {
            "unit": "deg/s",
            "limits": [[DEGREES * x for x in pair] for pair in action["limits"]],
            "slew": [DEGREES * x for x in action["slew"]],
        }

    contract = _changed(good.contract, in_degrees)
    return Good(contract, lambda o: np.float32(DEGREES) * good.policy(o), good.support)


FAULTS: dict[str, Callable[[Good], Good]] = {
    "sign flipped": sign_flipped,
    "joints reordered": joints_reordered,
    "weights noised": weights_noised,
    "limits off": limits_off,
    "degrees for radians": degrees,
}

SHOWS = {
    "sign flipped": "success rate",
    "joints reordered": "success rate",
    "weights noised": "success rate",
    "limits off": "violations at the actuators",
    "degrees for radians": "limit violations at the actuators",
}
"""By which criterion each fault must fail, in the nominal scenario already."""


def _changed(contract: Contract, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Contract:
    said = contract.model_dump(mode="json", exclude_unset=True)
    said["actions"] = [{**action, **change(action)} for action in said["actions"]]
    return Contract.model_validate(said)


def caught_by(record: ScenarioRecord, criterion: str) -> bool:
    """Whether the scenario failed by that criterion."""
    return any(criterion in c.name and not c.passed for c in record.criteria)


def main() -> None:
    """Runs all faults in the nominal scenario, and the good policy in the whole suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a good bundle of the arm")
    parser.add_argument("--quick", action="store_true", help="3 seeds instead of 20")
    arguments = parser.parse_args()
    make, jobs = partial(good_of, arguments.bundle.absolute()), os.cpu_count() or 1
    suite = load_suite("arm6")
    caught = {}
    for fault in FAULTS:
        run = run_suite(
            suite.narrowed(scenario="nominal"), 0, partial(controller, make, fault), jobs=jobs
        )
        (record,) = judge_run(run)
        caught[fault] = caught_by(record, SHOWS[fault])
        failed = "; ".join(c.in_words() for c in record.criteria if not c.passed)
        progress(f"{fault}: {'caught' if caught[fault] else 'MISSED'}: {failed}")
    failed_seeds = []
    seeds = range(1, 1 + (QUICK_SEEDS if arguments.quick else SEEDS))
    for seed in seeds:
        records = judge_run(run_suite(suite, seed, partial(controller, make), jobs=jobs))
        failures = [
            f"{r.name}: {c.in_words()}" for r in records for c in r.criteria if not c.passed
        ]
        progress(f"the good policy, seed {seed}: {'; '.join(failures) or 'passed'}")
        if failures:
            failed_seeds.append(seed)
    report(
        "planted_faults",
        arguments.quick,
        {"caught": caught, "good_runs": len(seeds), "good_runs_failed": failed_seeds},
    )


if __name__ == "__main__":
    main()
