"""Minari's layout: a folder with one HDF5 group an episode, and its spaces as JSON.

An episode of T steps has T + 1 observations, so each next observation must be the row
that follows. Checked with the library's own loader in tests/pipeline/test_dataset_tools.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import DatasetError
from training.datasets.ranges import action_range
from training.datasets.reading import as_actions, as_flags, as_floats, child, open_hdf5, row_infos
from training.datasets.table import Progress, Table, build_table, check_new, embed, embedded, join

VERSION = "0.5.4"
"""The release whose layout this is; the library refuses files of versions it does not know."""


def write_minari(table: Table, out: Path, *, force: bool, progress: Progress) -> list[str]:
    """Writes `out/data/main_data.hdf5` and `metadata.json`.

    Infos have T + 1 entries; the last, for which nothing was recorded, is NaN, or the
    smallest integer.

    Args:
        table: what to write.
        out: the dataset's folder; its name is its id, such as `arm6-v0`.
        force: replace a Minari dataset that is there.
        progress: called with episodes done and in all.

    Returns:
        What a user should know about the result.

    Raises:
        DatasetError: the name is no id, the folder exists, or next observations are not
            the rows that follow.
    """
    if not re.fullmatch(r"[-\w]+-v\d+", out.name):
        raise DatasetError(
            f"{out.name!r} is no Minari id, which is also the name of its folder: "
            f"end it with a version, as in --out {out.with_name(out.name + '-v0')}"
        )
    _check_chain(table)
    _check_replaceable(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        (temporary / "data").mkdir(parents=True)
        main = temporary / "data" / "main_data.hdf5"
        with h5py.File(main, "w") as file:
            for i, rows in enumerate(table.episodes):
                _write_episode(file.create_group(f"episode_{i}"), i, table, rows)
                progress(i + 1, len(table.episodes))
        metadata, findings = _metadata(table, out.name, main.stat().st_size)
        (temporary / "data" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return findings


def read_minari(src: Path, progress: Progress, contract: Contract | None = None) -> Table:
    """Reads a Minari dataset, its folder or the `data` folder within.

    Args:
        src: the folder.
        progress: called with episodes read and in all.
        contract: says what integer actions number, where the dataset brings none.

    Raises:
        DatasetError: naming file and key.
    """
    folder = src if (src / "metadata.json").exists() else src / "data"
    metadata = _read_metadata(folder / "metadata.json")
    main = folder / "main_data.hdf5"
    parts: list[dict[str, NDArray[Any]]] = []
    findings: list[str] = []
    with open_hdf5(main) as file:
        names = sorted((n for n in file if re.fullmatch(r"episode_\d+", n)), key=_number)
        for i, name in enumerate(names):
            if len(child(file[name], "rewards", main)):
                parts.append(_read_episode(file[name], main, contract))
            else:
                findings.append(f"{name} has no step: left out")
            progress(i + 1, len(names))
    if not parts:
        raise DatasetError(f"{main} has no episode with a step: is the download complete?")
    steps = sum(len(part["rewards"]) for part in parts)
    if metadata.get("total_steps", steps) != steps:
        findings.append(
            f"metadata.json tells of {metadata['total_steps']} steps, there are {steps}"
        )
    unended = sum(not (p["terminals"][-1] or p["timeouts"][-1]) for p in parts)
    if unended:
        findings.append(f"{unended} episode(s) end without a flag: counted as timeouts")
        for part in parts:
            part["timeouts"][-1] |= not part["terminals"][-1]
    rows, lost = join(parts)
    if lost:
        findings.append(f"left out, not in every episode: {', '.join(sorted(lost))}")
    infos = {n.removeprefix("infos/"): a for n, a in rows.items() if n.startswith("infos/")}
    columns = {n: a for n, a in rows.items() if not n.startswith("infos/")}
    ours, sources = embedded(metadata.get("iql_ros", {}), folder / "metadata.json")
    return build_table(src, columns, infos, contract=ours, sources=sources, findings=findings)


def _write_episode(group: h5py.Group, number: int, table: Table, rows: slice) -> None:
    columns = {name: array[rows] for name, array in table.columns.items()}
    group.attrs["id"] = number
    group.attrs["total_steps"] = len(columns["rewards"])
    arrays = {
        "observations": np.concatenate(
            [columns["observations"], columns["next_observations"][-1:]]
        ),
        "actions": columns["actions"],
        "rewards": columns["rewards"].astype(np.float64),
        "terminations": columns["terminals"],
        "truncations": columns["timeouts"],
    }
    for name, array in table.infos.items():
        arrays[f"infos/{name}"] = np.concatenate([array[rows], _unknown(array)])
    for name, array in arrays.items():
        group.create_dataset(name, data=array, track_times=False)


def _read_episode(
    group: h5py.Group, path: Path, contract: Contract | None
) -> dict[str, NDArray[Any]]:
    """The columns, and infos under their path, of one episode of at least one step."""
    where = group.name
    steps = len(group["rewards"])
    observations = as_floats(
        _flat(child(group, "observations", path), path),
        f"{where}/observations",
        path,
        rows=steps + 1,
        wide=True,
    )
    one = {key: child(group, key, path)[()] for key in ("rewards", "terminations", "truncations")}
    actions = child(group, "actions", path)
    if not isinstance(actions, h5py.Dataset):
        raise DatasetError(f"{path}: {where}/actions is a group, only one array of actions is read")
    return {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": as_actions(actions[()], f"{where}/actions", path, rows=steps, contract=contract),
        "rewards": as_floats(one["rewards"], f"{where}/rewards", path, rows=steps, wide=False),
        "terminals": as_flags(one["terminations"], f"{where}/terminations", path, rows=steps),
        "timeouts": as_flags(one["truncations"], f"{where}/truncations", path, rows=steps),
        **{f"infos/{name}": array for name, array in row_infos(group, steps).items()},
    }


def _flat(item: Any, path: Path) -> NDArray[Any]:
    """Observations (T + 1, O); those of a dictionary are joined in the order of their keys."""
    if isinstance(item, h5py.Dataset):
        return item[()]
    arrays = [_flat(item[key], path) for key in sorted(item)]
    if not arrays or any(a.ndim != 2 or len(a) != len(arrays[0]) for a in arrays):
        shapes = {key: a.shape for key, a in zip(sorted(item), arrays, strict=True)}
        raise DatasetError(
            f"{path}: {item.name} has shapes {shapes}, each must be (T + 1, columns)"
        )
    return np.concatenate(arrays, axis=1)


def _metadata(table: Table, dataset_id: str, size: int) -> tuple[dict[str, Any], list[str]]:
    low, high = action_range(table)
    outside = (table.columns["actions"] < low) | (table.columns["actions"] > high)
    findings = [f"{int(outside.any(axis=1).sum())} steps have an action outside action_space: kept"]
    width = table.columns["observations"].shape[1]
    if table.contract is None:
        observed = (np.full(width, -np.inf), np.full(width, np.inf))
    else:
        observed = (table.contract.observation_low, table.contract.observation_high)
    metadata = {
        "total_episodes": len(table.episodes),
        "total_steps": len(table),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _box(*observed),
        "action_space": _box(low, high),
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "dataset_size": round(size / 1e6, 1),
        "iql_ros": embed(table),
    }
    return metadata, findings if outside.any() else []


def _box(low: NDArray[Any], high: NDArray[Any]) -> str:
    bounds = {"low": np.float32(low).tolist(), "high": np.float32(high).tolist()}
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [len(low)], **bounds})


def _check_chain(table: Table) -> None:
    following, observations = table.columns["next_observations"], table.columns["observations"]
    inside = ~(table.columns["terminals"] | table.columns["timeouts"])[:-1]
    broken = np.flatnonzero((following[:-1] != observations[1:]).any(axis=1) & inside)
    if len(broken):
        raise DatasetError(
            f"{table.path}: next_observations[{broken[0]}] is not observations[{broken[0] + 1}] "
            f"although the episode goes on, {len(broken)} row(s) of its kind: Minari keeps one "
            f"chain of observations; mark those rows in 'timeouts', or export to d4rl"
        )


def _check_replaceable(out: Path, force: bool) -> None:
    check_new(out, force)
    if out.exists() and not (out / "data" / "metadata.json").exists():
        raise DatasetError(f"{out} is no Minari dataset and is not replaced: choose another path")


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DatasetError(
            f"{path} does not exist: give the folder of a Minari dataset, the one that holds data/"
        )
    try:
        metadata = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from None
    if not isinstance(metadata, dict) or metadata.get("data_format", "hdf5") != "hdf5":
        raise DatasetError(f"{path} does not tell of data_format hdf5, the only one read")
    return metadata


def _unknown(array: NDArray[Any]) -> NDArray[Any]:
    """One row like those of `array` that says: not recorded."""
    kind = array.dtype.kind
    value = np.nan if kind == "f" else np.iinfo(array.dtype).min if kind in "iu" else False
    return np.full_like(array[:1], value)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
