"""Robot logs to one HDF5 dataset of transitions, by a contract.

The work on one log, `convert_log`, is a function of the log and the contract alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros import __version__
from iql_ros.contract import Contract
from iql_ros.errors import DatasetError, LogError
from iql_ros.fields import FieldPlan
from training.dataset import write_dataset
from training.logs import find_logs, open_log
from training.steps import Steps, make_steps
from training.topics import read_topics

FORMAT = 1


@dataclass(frozen=True)
class Converted:
    """What one log gave: its steps, where they came from, and what was decided."""

    source: Mapping[str, Any]
    steps: Steps
    findings: Sequence[str]


@dataclass(frozen=True)
class Failed:
    """A log that gave nothing, and why."""

    path: Path
    reason: str


def convert(
    logs: Sequence[Path],
    contract: Contract,
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[Path, Converted | Failed], None] = lambda path, result: None,
) -> dict[str, Any]:
    """Converts logs into one dataset and writes the report `<out stem>.report.json` beside it.

    A log that fails is reported and left out; only if all fail is that an error.

    Args:
        logs: files and folders; folders are searched for bags.
        contract: what a step is.
        out: HDF5 file to write.
        force: overwrite it.
        progress: called after each log.

    Returns:
        The report.

    Raises:
        LogError: no log found, or none gave a step.
        ContractError: an expression or function of the contract is at fault.
        DatasetError: `out` exists.
    """
    if out.exists() and not force:
        raise DatasetError(f"{out} exists: choose another name or pass --force")
    paths = find_logs(logs)
    done: list[Converted] = []
    failed: list[Failed] = []
    for path in paths:
        try:
            result: Converted | Failed = convert_log(path, contract)
        except LogError as error:
            result = Failed(path, str(error))
        if isinstance(result, Failed):
            failed.append(result)
        else:
            done.append(result)
        progress(path, result)
    if not done:
        raise LogError(
            f"none of {len(paths)} logs gave a step:\n"
            + "\n".join(failure.reason for failure in failed)
        )
    done.sort(key=lambda converted: (converted.source["start_ns"], converted.source["sha256"]))
    columns, infos = _merge(done)
    attributes: dict[str, str | int] = {
        "format": FORMAT,
        "contract": contract.canonical_json(),
        "contract_digest": contract.digest(),
        "sources": json.dumps([converted.source for converted in done], sort_keys=True),
        "created_by": f"iql_ros {__version__}",
    }
    write_dataset(out, columns, infos=infos, attributes=attributes, force=force)
    report = {
        "dataset": out.name,
        "contract": contract.robot,
        "contract_digest": contract.digest(),
        "steps": len(columns["rewards"]),
        "episodes": int(infos["episode"][-1]) + 1,
        "logs": [
            {
                **converted.source,
                "facts": dict(converted.steps.facts),
                "findings": list(converted.findings),
            }
            for converted in done
        ],
        "failed": [{"path": str(f.path), "reason": f.reason} for f in failed],
    }
    _write_json(out.with_suffix(".report.json"), report)
    return report


def convert_log(path: Path, contract: Contract) -> Converted:
    """The steps of one log.

    Raises:
        LogError: it cannot be read, lacks a topic, or no step comes out of it.
    """
    log = open_log(path)
    plan = FieldPlan(contract, [*contract.fields])
    topics = read_topics(log, contract, plan)
    steps = make_steps(contract, plan, topics)
    if not len(steps.rewards):
        causes = ", ".join(f"{k} = {v}" for k, v in steps.facts.items() if v)
        raise LogError(f"{path}: no step meets the contract ({causes})")
    source = {
        "name": path.name,
        "sha256": sha256(path),
        "start_ns": int(steps.t_ns[0]),
        "steps": len(steps.rewards),
    }
    return Converted(source, steps, tuple(log.findings))


def _merge(done: Sequence[Converted]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns and infos of the dataset, in the order of the logs."""
    steps = [converted.steps for converted in done]
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in steps]).astype(kind)
        for name, kind in {
            "observations": np.float32,
            "next_observations": np.float32,
            "actions": np.float32,
            "rewards": np.float32,
            "terminals": np.bool_,
            "timeouts": np.bool_,
        }.items()
    }
    ended = columns["terminals"] | columns["timeouts"]
    infos = {
        "t_ns": np.concatenate([part.t_ns for part in steps]),
        "episode": np.concatenate([[0], np.cumsum(ended[:-1])]).astype(np.int32),
        "source": np.repeat(np.arange(len(steps)), [len(p.rewards) for p in steps]).astype(
            np.int32
        ),
    }
    for name in steps[0].signals:
        parts = [part.signals[name] for part in steps]
        infos[f"signals/{name}"] = np.concatenate(parts).astype(np.float32)
    return columns, infos


def sha256(path: Path) -> str:
    """Hash of a log file, or of the names and contents of a bag folder's files."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            if path.is_dir():
                digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
