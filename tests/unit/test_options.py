"""Each option of training goes through the loop, and a run with it resumes to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iql_ros.bundle import load_bundle
from iql_ros.policies import open_policy
from tests.small_dataset import write_point_dataset
from training.export import export_run
from training.learning.config import TrainConfig
from training.learning.train import load_run, train

OPTIONS: dict[str, dict[str, Any]] = {
    "deterministic": {"actor": "deterministic"},
    "unsquashed": {"actor": "unsquashed"},
    "dropout": {"dropout": 0.3},
    "layer norm": {"layer_norm": "all"},
    "warm-up": {"value_warm_up": 25},
    "annealed": {"expectile_schedule": "annealed"},
    "value error": {"expectile_schedule": "value_error"},
    "policy value": {"expectile_schedule": "policy_value"},
    "best half": {"best_fraction": 0.5},
    "bc with dropout": {"algorithm": "bc", "dropout": 0.3},
    "cql": {"algorithm": "cql", "conservative_samples": 2},
    "cql with layer norm": {"algorithm": "cql", "conservative_samples": 2, "layer_norm": "all"},
}


class Killed(Exception):
    """Ends a run with no chance to tidy up, as kill -9 would."""


def quiet(step: int, losses: object, updates_per_s: float) -> None:
    """A report that shows nothing."""


def killed(step: int, losses: object, updates_per_s: float) -> None:
    if step == 30:
        raise Killed


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS.keys())
def test_a_killed_run_with_any_option_resumes_to_the_bit(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    config = TrainConfig.model_validate(
        {
            **{"steps": 40, "hidden": (8, 8), "batch_size": 16},
            **{"log_every": 5, "evaluate_every": 10, "checkpoint_every": 20},
            **changes,
        }
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    train(dataset, whole, config, progress=quiet)
    with pytest.raises(Killed):
        train(dataset, broken, config, progress=killed)
    train(dataset, broken, config, resume=True, progress=quiet)

    ours, theirs = (load_run(folder).learner.state_dict() for folder in (whole, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (whole / "metrics.jsonl").read_bytes() == (broken / "metrics.jsonl").read_bytes()
    with torch.no_grad():
        action = load_run(broken).policy(torch.zeros(4, 3))
    assert action.shape == (4, 2)
    assert action.abs().max() <= 0.5


def test_a_run_on_the_best_half_leaves_the_others_out(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    config = TrainConfig(
        steps=10,
        hidden=(8,),
        best_fraction=0.5,
        log_every=10,
        evaluate_every=10,
        checkpoint_every=10,
    )

    train(dataset, tmp_path / "run", config, progress=quiet)

    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (summary["episodes"], summary["held_out_episodes"]) == (6, 1)  # half of eleven, rounded


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": "unsquashed", "layer_norm": "all", "dropout": 0.3},
        {"algorithm": "cql", "conservative_samples": 2, "layer_norm": "all"},
    ],
    ids=["unsquashed", "cql"],
)
def test_what_acts_goes_into_a_bundle_that_numpy_runs_too(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    intervals = {"log_every": 10, "evaluate_every": 10, "checkpoint_every": 10}
    config = TrainConfig.model_validate({"steps": 10, "hidden": (8, 8), **intervals, **changes})
    run = train(dataset, tmp_path / "run", config, progress=quiet)
    states = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))

    bundle = load_bundle(export_run(run.path, tmp_path / "bundle"))
    policy = open_policy(bundle, "numpy").policy

    with torch.no_grad():
        expected = run.policy(states).numpy()
    acted = np.array([policy(state) for state in states.numpy()])
    np.testing.assert_allclose(acted, expected, rtol=1e-5, atol=1e-6)
