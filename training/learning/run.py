"""The folder of a training run: begun, resumed, read back.

It holds `config.yaml`, `run.json` (what it was trained on, and what was found amiss),
`checkpoint.pt`, `metrics.jsonl`, and TensorBoard's event files.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from training.datasets.scaling import Normaliser
from training.learning.checkpoint import (
    Checkpoint,
    Origin,
    RunError,
    first_mismatch,
    load_checkpoint,
)
from training.learning.config import TrainConfig, dump_config, with_samples
from training.learning.discrete import unit_choices
from training.learning.drawing import drawing
from training.learning.learner import Learner, create_learner
from training.learning.networks import DeployedPolicy

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_BEFORE = "checkpoint.before.pt"  # of seeds that train together
CONFIG = "config.yaml"


@dataclass(frozen=True)
class Run:
    """A training run, ready for export and evaluation.

    Attributes:
        path: its folder.
        step: updates taken.
        config, contract, normaliser, action_low, action_high: see `checkpoint.Origin`.
        dataset_path, dataset_digest: what it was trained on.
        metrics: the newest held-out losses by name.
        learner: all networks.
        policy: what is deployed, SI observation to SI action.
    """

    path: Path
    step: int
    config: TrainConfig
    contract: Contract | None
    normaliser: Normaliser
    action_low: NDArray[np.float64]
    action_high: NDArray[np.float64]
    dataset_path: Path
    dataset_digest: str
    metrics: dict[str, float]
    learner: Learner
    policy: DeployedPolicy

    @property
    def finished(self) -> bool:
        """Whether all of the configured updates were taken."""
        return self.step >= self.config.steps


def load_run(path: Path, *, samples: int | None = None, stochastic: bool = False) -> Run:
    """Reads a run as of its newest checkpoint.

    Args:
        path: its folder.
        samples: how many actions its policy chooses from, if not as many as its config says.
        stochastic: its policy draws its actions; see `drawing`.

    Raises:
        RunError: no run there, or its checkpoint is damaged.
        ConfigError: samples are asked of a policy that has none, or chance of a deterministic one.
    """
    checkpoint = load_checkpoint(path / CHECKPOINT)
    origin = checkpoint.origin
    if samples is not None:
        origin = replace(origin, config=with_samples(origin.config, samples))
    choices = unit_choices(origin.contract)
    sizes = len(origin.normaliser.mean), len(origin.action_low)
    learner = create_learner(origin.config, *sizes, choices)
    learner.load_state_dict(checkpoint.networks)
    acting = learner.deployed()
    policy = DeployedPolicy(
        drawing(acting) if stochastic else acting,
        origin.normaliser.mean,
        origin.normaliser.std,
        origin.action_low,
        origin.action_high,
    )
    return Run(
        path=path,
        step=checkpoint.step,
        config=origin.config,
        contract=origin.contract,
        normaliser=origin.normaliser,
        action_low=origin.action_low,
        action_high=origin.action_high,
        dataset_path=Path(origin.dataset_path),
        dataset_digest=origin.dataset_digest,
        metrics=checkpoint.held_out,
        learner=learner,
        policy=policy.eval(),
    )


def begin_run(out: Path, origin: Origin, summary: dict[str, Any], *, force: bool) -> None:
    """Makes a fresh run folder; with `force` an earlier run there is removed first.

    Args:
        out: the folder.
        origin: gives the resolved config and the dataset's identity.
        summary: counts and findings, written to `run.json` for people and reports.
        force: whether an earlier run may be removed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not force:
            raise RunError(
                f"{out} is not empty: choose another folder, or --resume, or --force to replace it"
            )
        # Only what is plainly a run is ever deleted.
        if not (out / CONFIG).is_file():
            raise RunError(f"{out} holds no {CONFIG}, so it is no run to replace: choose another")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(dump_config(origin.config))
    content = {
        "dataset": origin.dataset_path,
        "dataset_digest": origin.dataset_digest,
        "contract_digest": None if origin.contract is None else origin.contract.digest(),
        **summary,
    }
    (out / "run.json").write_text(json.dumps(content, indent=2) + "\n")


def resume_run(out: Path, origin: Origin, learner: Learner, file: str = CHECKPOINT) -> Checkpoint:
    """Brings `learner` to the state of a checkpoint in `out`, the newest, and returns that.

    Raises:
        RunError: no checkpoint, or the run began otherwise; names the first difference.
    """
    checkpoint = load_checkpoint(out / file)
    difference = first_mismatch(checkpoint.origin, origin)
    if difference is not None:
        raise RunError(
            f"{out} cannot be resumed, it was begun otherwise: {difference}; "
            f"give what it began with ({out / CONFIG}), or train into another folder"
        )
    learner.load_state_dict(checkpoint.networks)
    for name, state in checkpoint.optimisers.items():
        try:
            learner.optimisers[name].load_state_dict(state)
        except ValueError as error:
            raise RunError(
                f"{out} cannot be resumed: its optimiser {name!r} was saved by a version that "
                f"updates otherwise ({error}); train into another folder"
            ) from error
    for name, state in checkpoint.generators.items():
        learner.generators[name].set_state(state)
    return checkpoint
