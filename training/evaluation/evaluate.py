"""Everything that logs can tell about one run, gathered and weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluation.calibration import Calibration, calibrate
from training.evaluation.curves import gap, read_curves, signs
from training.evaluation.distance import action_distance
from training.evaluation.estimates import estimate
from training.evaluation.fqe import Bounds, FqeSettings
from training.evaluation.judged import (
    Judged,
    judged_by,
    policy_actions,
    recorded_actions,
)
from training.evaluation.outside import outside_support
from training.evaluation.returns import returns_to_go
from training.evaluation.values import (
    NetworkValues,
    network_values,
)
from training.evaluation.verdict import CAVEAT, Evidence, remarks, vetoes
from training.learning.metrics import read_metrics
from training.learning.run import load_run
from training.report.numbers import plain

FORMAT = 1


def evaluate(
    run_folder: Path,
    dataset: Path | None = None,
    *,
    discount: float | None = None,
    settings: FqeSettings | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Judges a run, and returns the facts as `evaluation.json` holds them.

    Args:
        run_folder: of a training run.
        dataset: see `judged_by`.
        discount: gamma of the estimates; None for the run's own.
        settings: of the fitted Q evaluation.
        say: hears what is being done.

    Raises:
        RunError: there is no run.
        DatasetError: its dataset is missing or changed, or the given one does not fit.
    """
    torch.set_num_threads(1)
    settings = settings or FqeSettings()
    run = load_run(run_folder)
    judged = judged_by(run, dataset)
    discount = run.config.discount if discount is None else discount

    estimates = estimate(judged, discount, settings, say)
    say("predicted values, actions, support")
    networks = network_values(judged)
    values = {} if networks is None else _calibrations(judged, networks)
    curves = read_curves(read_metrics(run_folder / "metrics.jsonl"))
    spread = None if networks is None else float(_returns(judged, networks).std())
    read = signs(curves, spread)
    outside = outside_support(judged)
    foremost = next(iter(values.values()), None)
    evidence = Evidence(
        episodes=len(estimates.recorded.returns),
        gain=estimates.gain,
        outside_pairs=outside["policy_pairs"],
        outside_recorded=outside["recorded_pairs"],
        largest_value=None if networks is None else _largest(networks),
        value_bounds=_bounds(judged),
        rank_correlation=None if foremost is None else foremost.rank_correlation,
        value_bias=None if foremost is None else foremost.bias,
        estimator_error=estimates.error,
        cut_off=estimates.recorded.cut_off,
        is_unseen=judged.is_unseen,
        is_finished=run.finished,
        signs=tuple(sign.text for sign in read),
    )
    facts = {
        **_identity(judged, dataset, discount),
        **_weighed(evidence, judged.episodes.findings),
        "value": estimates.facts(),
        "calibration": {name: asdict(found) for name, found in values.items()},
        "held_out_losses": run.metrics,
        "gaps": {name: gap(curves, name) for name in _losses(curves)},
        "signs": [asdict(sign) for sign in read],
        "curves": {name: asdict(curve) for name, curve in curves.items()},
        "actions": _actions(judged),
        "outside": outside,
    }
    return plain(facts)


def _identity(judged: Judged, dataset: Path | None, discount: float) -> dict[str, Any]:
    """Which run is judged, and on what."""
    run = judged.run
    return {
        "format": FORMAT,
        "run": str(run.path),
        "algorithm": run.config.algorithm,
        "step": run.step,
        "steps": run.config.steps,
        "dataset": str(run.dataset_path if dataset is None else dataset),
        "dataset_digest": run.dataset_digest,
        "judged_on": judged.basis,
        "episodes": len(judged.episodes.episodes[0]),
        "discount": discount,
        "config": run.config.model_dump(mode="json"),
    }


def _weighed(evidence: Evidence, findings: Sequence[str]) -> dict[str, Any]:
    against = vetoes(evidence)
    return {
        "verdict": "veto" if against else "no objection",
        "reasons": against,
        "remarks": [*remarks(evidence), *findings],
        "caveat": CAVEAT,
    }


def _losses(curves: Iterable[str]) -> list[str]:
    """What is told both of training and of held-out data."""
    return sorted(name.removeprefix("train/") for name in curves if name.startswith("train/"))


def _returns(judged: Judged, networks: NetworkValues) -> NDArray[np.float64]:
    """Returns to go in the training's units; V stands in for what lies beyond a cut."""
    starts, ends = judged.episodes.episodes
    return returns_to_go(networks.rewards, starts, ends, judged.run.config.discount, networks.tails)


def _calibrations(judged: Judged, networks: NetworkValues) -> dict[str, Calibration]:
    returns, starts = _returns(judged, networks), judged.episodes.episodes[0]
    found = {} if networks.v is None else {"V": calibrate(networks.v, returns, starts)}
    return {**found, "Q": calibrate(networks.q, returns, starts)}


def _largest(networks: NetworkValues) -> float:
    values = networks.q if networks.v is None else np.concatenate([networks.q, networks.v])
    return float(values[np.argmax(np.abs(values))])


def _bounds(judged: Judged) -> tuple[float, float]:
    config = judged.run.config
    rewards = config.reward_scale * judged.seen.rewards + config.reward_shift
    bounds = Bounds.of(rewards, config.discount)
    return bounds.low, bounds.high


def _actions(judged: Judged) -> dict[str, Any]:
    run, data, seen = judged.run, judged.episodes, judged.seen
    measured = action_distance(
        run.normaliser(data.observations),
        policy_actions(run, data.observations),
        recorded_actions(run, data),
        run.normaliser(seen.observations),
        recorded_actions(run, seen),
    )
    facts = asdict(measured)
    names = data.contract.action_names if data.contract is not None else None
    if names is None:
        names = tuple(f"actions[{i}]" for i in range(data.actions.shape[1]))
    facts["components"] = dict(zip(names, measured.components, strict=True))
    return facts
