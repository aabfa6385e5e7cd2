"""robomimic's layout: one group a demonstration, observations by key, actions in [-1, 1].

Checked with the library's own SequenceDataset in tests/pipeline/test_dataset_tools.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import DatasetError
from training.datasets.ranges import action_range, from_unit, to_unit
from training.datasets.reading import as_actions, as_flags, as_floats, child, open_hdf5, row_infos
from training.datasets.table import Progress, Table, build_table, check_new, embed, embedded, join

Columns = dict[str, NDArray[Any]]

GYM_ENVIRONMENT = 2
"""robomimic's number for an environment that is neither robosuite's nor iGibson's."""


def write_robomimic(table: Table, out: Path, *, force: bool, progress: Progress) -> list[str]:
    """Writes the file; each observation field of the contract becomes a key of `obs`.

    `dones` are the terminals; timeouts and infos lie beside them, where robomimic does not
    look. `states`, the simulator's state in robomimic, is the whole observation.

    Returns:
        What a user should know about the result.

    Raises:
        DatasetError: the file exists and `force` is not set.
    """
    check_new(out, force)
    low, high = action_range(table)
    keys = _observation_keys(table)
    unit = to_unit(table.columns["actions"], low, high)
    environment = {
        "env_name": "robot" if table.contract is None else table.contract.robot,
        "type": GYM_ENVIRONMENT,
        "env_kwargs": {
            "action_low": low.tolist(),
            "action_high": high.tolist(),
            "observation_keys": list(keys),
            **embed(table),
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w") as file:
            data = file.create_group("data")
            data.attrs["total"] = len(table)
            data.attrs["env_args"] = json.dumps(environment)
            for i, rows in enumerate(table.episodes):
                _write_demo(data.create_group(f"demo_{i}"), table, rows, unit, keys)
                progress(i + 1, len(table.episodes))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    changed = from_unit(unit, low, high) != table.columns["actions"]
    if not changed.any():
        return []
    return [
        f"{int(changed.sum())} action value(s) lie outside the limits, or nearer to 0 than the "
        f"scaling to [-1, 1] resolves: they come back changed"
    ]


def read_robomimic(src: Path, progress: Progress, keys: Sequence[str] = ()) -> Table:
    """Reads a robomimic file.

    Args:
        src: the file.
        progress: called with demonstrations done and in all.
        keys: of `obs`, in the order of the observation vector; if empty those that an export
            of ours names, else all that are vectors, by name.

    Raises:
        DatasetError: naming file and key.
    """
    findings: list[str] = []
    parts: list[Columns] = []
    with open_hdf5(src) as file:
        data = child(file, "data", src)
        known = _environment(data, src).get("env_kwargs", {})
        names = sorted((n for n in data if re.fullmatch(r"demo_\d+", n)), key=_number)
        if not names:
            raise DatasetError(f"{src}: data holds no demo_<number>: is it a robomimic file?")
        keys = keys or known.get("observation_keys") or _vector_keys(data[names[0]], src, findings)
        for i, name in enumerate(names):
            parts.append(_read_demo(data[name], keys, src))
            progress(i + 1, len(names))
    if "action_low" in known:
        low, high = np.array(known["action_low"]), np.array(known["action_high"])
        for part in parts:
            part["actions"] = from_unit(part["actions"], low, high)
    else:
        findings.append("env_args tells of no action limits: actions stay in [-1, 1]")
    parts, rested = _without_rest(parts)
    if rested:
        findings.append(f"{rested} step(s) after a done that are done themselves: dropped")
    rows, lost = join(parts)
    if lost:
        findings.append(f"left out, not in every demonstration: {', '.join(sorted(lost))}")
    infos = {n.removeprefix("infos/"): a for n, a in rows.items() if n.startswith("infos/")}
    columns = {n: a for n, a in rows.items() if not n.startswith("infos/")}
    columns["actions"] = columns["actions"].astype(np.float32)
    contract, sources = embedded(known, src)
    return build_table(src, columns, infos, contract=contract, sources=sources, findings=findings)


def _observation_keys(table: Table) -> dict[str, slice]:
    """The columns of each key of `obs`, in the order of the observation vector."""
    if table.contract is None:
        return {"observations": slice(None)}
    at = {field.name: table.contract.index(field.name) for field in table.contract.observations}
    return {n: slice(i, i + 1) if isinstance(i, int) else i for n, i in at.items()}


def _write_demo(
    group: h5py.Group,
    table: Table,
    rows: slice,
    unit: NDArray[np.float64],
    keys: Mapping[str, slice],
) -> None:
    columns = {name: array[rows] for name, array in table.columns.items()}
    group.attrs["num_samples"] = len(columns["rewards"])
    arrays = {
        "actions": unit[rows],
        "rewards": columns["rewards"],
        "dones": columns["terminals"].astype(np.int64),
        "timeouts": columns["timeouts"],
        "states": columns["observations"],
        **{f"obs/{key}": columns["observations"][:, at] for key, at in keys.items()},
        **{f"next_obs/{key}": columns["next_observations"][:, at] for key, at in keys.items()},
        **{f"infos/{name}": array[rows] for name, array in table.infos.items()},
    }
    for name, array in arrays.items():
        group.create_dataset(name, data=array, track_times=False)


def _read_demo(group: h5py.Group, keys: Sequence[str], path: Path) -> Columns:
    """The columns, and infos under their path; actions as they lie, in float64."""
    where = group.name
    actions = child(group, "actions", path)[()]
    steps = len(actions)
    as_actions(actions, f"{where}/actions", path, rows=steps)
    if not steps:
        raise DatasetError(f"{path}: {where} has no step: remove it")

    def observed(part: str) -> NDArray[np.float32]:
        seen = child(group, part, path)
        return np.concatenate(
            [
                as_floats(
                    child(seen, key, path)[()], f"{where}/{part}/{key}", path, rows=steps, wide=True
                )
                for key in keys
            ],
            axis=1,
        )

    rewards, dones = child(group, "rewards", path)[()], child(group, "dones", path)[()]
    terminals = as_flags(dones, f"{where}/dones", path, rows=steps)
    ends = group["timeouts"][()] if "timeouts" in group else np.zeros(steps, np.bool_)
    timeouts = as_flags(ends, f"{where}/timeouts", path, rows=steps)
    timeouts[-1] |= not terminals[-1]
    return {
        "observations": observed("obs"),
        **({"next_observations": observed("next_obs")} if "next_obs" in group else {}),
        "actions": actions.astype(np.float64),
        "rewards": as_floats(rewards, f"{where}/rewards", path, rows=steps, wide=False),
        "terminals": terminals,
        "timeouts": timeouts,
        **{f"infos/{name}": array for name, array in row_infos(group, steps).items()},
    }


def _without_rest(parts: Sequence[Columns]) -> tuple[list[Columns], int]:
    """Drops steps after a done that are done themselves, as convert does after a terminal."""
    kept: list[Columns] = []
    dropped = 0
    for part in parts:
        done = part["terminals"]
        rest = np.append(False, done[1:] & done[:-1])
        dropped += int(rest.sum())
        kept.append({n: a[~rest] for n, a in part.items()} if rest.any() else part)
    return kept, dropped


def _vector_keys(demo: h5py.Group, path: Path, findings: list[str]) -> list[str]:
    seen = child(demo, "obs", path)
    vectors = [key for key in sorted(seen) if getattr(seen[key], "ndim", 0) == 2]
    left = [key for key in sorted(seen) if key not in vectors]
    if not vectors:
        raise DatasetError(f"{path}: {seen.name} holds no vectors, only {', '.join(left) or '-'}")
    findings.append(f"the observation is {', '.join(vectors)} of obs, in this order")
    if left:
        findings.append(f"left out, no vectors: obs/{', obs/'.join(left)}")
    return vectors


def _environment(data: h5py.Group, path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(data.attrs.get("env_args", "{}"))
    except ValueError as error:
        raise DatasetError(f"{path}: attribute env_args of data is no JSON: {error}") from None
    return environment if isinstance(environment, dict) else {}


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
