"""A checkpoint: everything the next update depends on, in one file of tensors and plain types.

The rows of a batch follow from (seed, step), see `training.learning.learner.draw_block`;
what else is random comes from the learner's generators, whose states are kept.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iql_ros.contract import Contract, first_difference
from iql_ros.errors import IqlRosError
from iql_ros.files import write_bytes
from training.datasets.dataset import Dataset
from training.datasets.scaling import Normaliser
from training.learning.config import TrainConfig

FORMAT = 1


class RunError(IqlRosError):
    """A run folder is missing, incomplete, or would be continued otherwise than it began."""


@dataclass(frozen=True)
class Origin:
    """What a run was started from; a resumed run must have the same.

    Attributes:
        config: the resolved configuration.
        contract: of the dataset; None for a plain D4RL file.
        normaliser: fitted on the training episodes.
        action_low, action_high: (A,) float64, SI.
        dataset_path: where the dataset lay.
        dataset_digest, column_digests: its content, see `Dataset`.
    """

    config: TrainConfig
    contract: Contract | None
    normaliser: Normaliser
    action_low: NDArray[np.float64]
    action_high: NDArray[np.float64]
    dataset_path: str
    dataset_digest: str
    column_digests: dict[str, str]

    @classmethod
    def of(
        cls, config: TrainConfig, dataset: Dataset, path: Path, normaliser: Normaliser
    ) -> Origin:
        """Returns the origin of a run on `dataset`, read from `path`."""
        return cls(
            config=config,
            contract=dataset.contract,
            normaliser=normaliser,
            action_low=dataset.action_low,
            action_high=dataset.action_high,
            dataset_path=str(path.resolve()),
            dataset_digest=dataset.digest,
            column_digests=dataset.column_digests,
        )


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` updates.

    Attributes:
        step: updates taken.
        origin: what the run was started from.
        networks: state of all networks, target critics included.
        optimisers: state of each optimiser by name.
        generators: state of each random generator by name.
        held_out: the newest held-out losses; empty without held-out data.
    """

    step: int
    origin: Origin
    networks: dict[str, torch.Tensor]
    optimisers: dict[str, Any]
    generators: dict[str, torch.Tensor]
    held_out: dict[str, float]


def first_mismatch(run: Origin, now: Origin) -> str | None:
    """Returns the first thing in which `now` differs from the run's origin, or None."""
    theirs = now.config.model_dump()
    for key, value in run.config.model_dump().items():
        if theirs[key] != value:
            return f"config key {key!r}: {value} in the run, {theirs[key]} now"
    if (run.contract is None) != (now.contract is None):
        return "contract: present only " + ("now" if run.contract is None else "in the run")
    if run.contract is not None and now.contract is not None:
        difference = first_difference(run.contract, now.contract)
        if difference is not None:
            return f"contract: {difference} (run against now)"
    for name, digest in run.column_digests.items():
        if now.column_digests[name] != digest:
            return f"dataset column {name!r}: other values in {now.dataset_path}"
    return None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; a crash leaves either the old file or the new one."""
    origin = checkpoint.origin
    content = {
        "format": FORMAT,
        "step": checkpoint.step,
        "config": origin.config.model_dump(mode="json"),
        "contract": None if origin.contract is None else origin.contract.canonical_json(),
        "normaliser": {
            "mean": torch.tensor(origin.normaliser.mean),
            "std": torch.tensor(origin.normaliser.std),
            "constant": list(origin.normaliser.constant),
        },
        "action_low": torch.tensor(origin.action_low),
        "action_high": torch.tensor(origin.action_high),
        "dataset_path": origin.dataset_path,
        "dataset_digest": origin.dataset_digest,
        "column_digests": origin.column_digests,
        "networks": checkpoint.networks,
        "optimisers": checkpoint.optimisers,
        "generators": checkpoint.generators,
        "held_out": checkpoint.held_out,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; nothing but tensors and plain types is unpickled.

    Raises:
        RunError: there is none, it is damaged, or of another format.
    """
    if not path.is_file():
        raise RunError(f"{path.parent} holds no {path.name}: is it the folder of a training run?")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"{path} is damaged, it cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise RunError(f"{path} has format {found}, this version reads {FORMAT}: train anew")
    normaliser = content["normaliser"]
    contract = content["contract"]
    origin = Origin(
        config=TrainConfig.model_validate(content["config"]),
        contract=None if contract is None else Contract.from_json(contract),
        normaliser=Normaliser(
            normaliser["mean"].numpy(), normaliser["std"].numpy(), tuple(normaliser["constant"])
        ),
        action_low=content["action_low"].numpy(),
        action_high=content["action_high"].numpy(),
        dataset_path=content["dataset_path"],
        dataset_digest=content["dataset_digest"],
        column_digests=content["column_digests"],
    )
    return Checkpoint(
        step=content["step"],
        origin=origin,
        networks=content["networks"],
        optimisers=content["optimisers"],
        generators=content.get("generators", {}),
        held_out=content["held_out"],
    )
