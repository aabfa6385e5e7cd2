"""Robot logs to one HDF5 dataset of transitions, by a contract.

Each log becomes a part (one_log.py), on all cores (many.py); then the parts are merged in the
order of the logs' times. So the file does not depend on the order in which logs were given or
finished, on the number of processes, or on how often the work was interrupted.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros import __version__
from iql_ros.contract import Contract
from iql_ros.errors import ContractError, DatasetError, LogError
from training.conversion.many import Failed, convert_each
from training.conversion.one_log import FLAGS, FLOATS, Converted, convert_log
from training.conversion.parts import Part, read_part
from training.conversion.rewards import rule_faults
from training.datasets.file import FORMAT, write_dataset
from training.logs import find_logs
from training.report import build_report, write_report

__all__ = ["Converted", "Failed", "Part", "convert", "convert_log"]


def convert(
    logs: Sequence[Path],
    contract: Contract,
    out: Path,
    *,
    force: bool = False,
    jobs: int | None = None,
    progress: Callable[[Path, Part | Failed], None] = lambda path, result: None,
) -> dict[str, Any]:
    """Converts logs into one dataset, with a report beside it: `<out stem>.report.html`, `.json`.

    A log that fails is reported and left out; only if all fail is that an error. Finished logs
    are kept in `<out>.parts` until the dataset is complete: after an interruption, the same call
    goes on where it was.

    Args:
        logs: files and folders; folders are searched for bags.
        contract: what a step is.
        out: HDF5 file to write.
        force: overwrite it.
        jobs: processes; 1 converts in this one; None takes all cores, as far as they are worth
            their start.
        progress: called after each log, in the order in which they finish.

    Returns:
        The report.

    Raises:
        LogError: no log found, or none gave a step.
        ContractError: a rule of the contract cannot be evaluated, or it fits none of the logs.
        DatasetError: `out` exists, or another process is converting to it.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs = {jobs} must be at least 1")
    if out.exists() and not force:
        raise DatasetError(f"{out} exists: choose another name or pass --force")
    if faults := rule_faults(contract):  # of the contract, and so of every log
        raise ContractError("\n".join(faults))
    paths = find_logs(logs)
    with _parts_folder(out) as folder:
        results: list[tuple[Path, Part | Failed]] = []
        with closing(convert_each(paths, contract, folder, jobs)) as finished:
            for path, result in finished:
                results.append((path, result))
                progress(path, result)
        results.sort(key=lambda item: item[0])
        failed = [result for _, result in results if isinstance(result, Failed)]
        parts = [result for _, result in results if isinstance(result, Part)]
        if not parts:
            _raise_all(failed)
        parts.sort(key=lambda part: [part.source[key] for key in ("start_ns", "sha256", "name")])
        columns, infos = _merge(contract, parts)
        attributes: dict[str, str | int] = {
            "format": FORMAT,
            "contract": contract.canonical_json(),
            "contract_digest": contract.digest(),
            "sources": json.dumps([dict(part.source) for part in parts], sort_keys=True),
            "created_by": f"iql_ros {__version__}",
        }
        failures = [{"path": str(f.path), "reason": f.reason, "kind": f.kind} for f in failed]
        report = build_report(columns, infos, contract, _facts(parts), failures, dataset=out.name)
        write_dataset(out, columns, infos=infos, attributes=attributes, force=force)
        write_report(out.with_suffix(".report.html"), out.with_suffix(".report.json"), report)
        _remove(folder)
    return report


@contextmanager
def _parts_folder(out: Path) -> Iterator[Path]:
    """The folder of finished logs, for this process alone; it stays if anything is in it."""
    folder = out.absolute().with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"another process is converting to {out}: wait for it, or choose another name"
            ) from None
        try:
            yield folder
        finally:
            if not any(folder.glob("*.npz")):
                _remove(folder)


def _remove(folder: Path) -> None:
    """Removes what this module put there, and the folder if nobody put anything else there."""
    for pattern in ("*.npz", "*.tmp", "lock"):
        for file in folder.glob(pattern):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _raise_all(failed: Sequence[Failed]) -> None:
    """The one error of a conversion that gave nothing."""
    reasons = list(dict.fromkeys(failure.reason for failure in failed))
    text = f"none of {len(failed)} logs gave a step:\n" + "\n".join(reasons[:10])
    if len(reasons) > 10:
        text += f"\nand {len(reasons) - 10} more"
    if all(failure.kind == "ContractError" for failure in failed):
        raise ContractError(text)
    raise LogError(text)


def _merge(
    contract: Contract, parts: Sequence[Part]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Columns and infos of the dataset, in the order of the parts; one part in memory at a time."""
    counts = [part.source["steps"] for part in parts]
    rows = sum(counts)
    widths = {"observations": contract.observation_size, "actions": contract.action_size}
    widths["next_observations"] = widths["observations"]
    columns: dict[str, NDArray[Any]] = {
        name: np.empty((rows, widths[name]) if name in widths else rows, np.float32)
        for name in FLOATS
    }
    columns |= {name: np.empty(rows, np.bool_) for name in FLAGS}
    infos: dict[str, NDArray[Any]] = {"t_ns": np.empty(rows, np.int64)}
    for field in contract.signals:
        width = len(contract.components(field.name))
        infos[f"signals/{field.name}"] = np.empty((rows, width), np.float32)
    stop = 0
    for part, count in zip(parts, counts, strict=True):
        start, stop = stop, stop + count
        found = read_part(part.file)
        if found is None:
            raise DatasetError(f"{part.file} was altered meanwhile: run the same command again")
        for name, column in (*columns.items(), *infos.items()):
            column[start:stop] = found[0][name]
    ended = columns["terminals"] | columns["timeouts"]
    infos["episode"] = np.concatenate([[0], np.cumsum(ended[:-1])]).astype(np.int32)
    infos["source"] = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
    return columns, infos


def _facts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """What the report says of each log; a copy of another log is told."""
    logs = [
        {**part.source, "facts": dict(part.facts), "findings": list(part.findings)}
        for part in parts
    ]
    for (before, part), log in zip(pairwise(parts), logs[1:], strict=True):
        if before.source["sha256"] == part.source["sha256"]:
            log["findings"].append(f"a copy of {before.source['name']}: its steps are there twice")
    return logs
