"""The work on one log: a function of the log and the contract alone, so that anyone can map it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from training.conversion.parts import Identity, Part, identify, load_or_make
from training.conversion.steps import Steps, make_steps
from training.conversion.topics import read_topics
from training.logs import open_log

FLOATS = ("observations", "next_observations", "actions", "rewards")
FLAGS = ("terminals", "timeouts")


@dataclass(frozen=True)
class Converted:
    """What one log gave: its steps, where they came from, and what was decided."""

    source: Mapping[str, Any]
    steps: Steps
    findings: Sequence[str]


def convert_log(path: Path, contract: Contract) -> Converted:
    """The steps of one log.

    Raises:
        LogError: it cannot be read, lacks a topic, or no step comes out of it.
        ContractError: the contract does not fit the log's messages.
    """
    return _convert(path, contract, identify(path))


def convert_to_part(path: Path, contract: Contract, folder: Path) -> Part:
    """The steps of one log as a file in `folder`, which is taken as it is if it is there."""
    return load_or_make(path, contract, folder, _columns)


def _convert(path: Path, contract: Contract, identity: Identity) -> Converted:
    log = open_log(path)
    plan = FieldPlan(contract, [*contract.fields])
    topics = read_topics(log, contract, plan)
    steps = make_steps(contract, plan, topics)
    if not len(steps.rewards):
        reasons = ("dropped_", "stale_", "nonfinite_")
        causes = ", ".join(
            f"{k} = {v}" for k, v in steps.facts.items() if v and k.startswith(reasons)
        )
        raise LogError(f"{path}: no step meets the contract ({causes})")
    extent = {"begin_ns": log.start_ns, "end_ns": log.end_ns}
    source = {
        "name": path.name,
        "bytes": identity.size,
        "sha256": identity.sha256,
        "sha256_of": "samples" if identity.sampled else "all",
        "start_ns": int(steps.t_ns[0]),
        "steps": len(steps.rewards),
        **{key: t_ns for key, t_ns in extent.items() if t_ns is not None},
    }
    return Converted(source, steps, tuple(log.findings))


def _columns(
    path: Path, contract: Contract, identity: Identity
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The dataset's columns of one log in their final types, and the facts on it."""
    converted = _convert(path, contract, identity)
    steps = converted.steps
    columns: dict[str, NDArray[Any]] = {"t_ns": steps.t_ns}
    columns |= {name: getattr(steps, name).astype(np.float32) for name in FLOATS}
    columns |= {name: getattr(steps, name) for name in FLAGS}
    columns |= {f"signals/{name}": v.astype(np.float32) for name, v in steps.signals.items()}
    facts = {
        "source": dict(converted.source),
        "facts": dict(steps.facts),
        "findings": list(converted.findings),
    }
    return columns, facts
