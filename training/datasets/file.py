"""The HDF5 file of a dataset: read with its shapes checked, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import DatasetError
from training.datasets.mapped import read_column

FORMAT = 1
COLUMNS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
REQUIRED = ("observations", "actions", "rewards", "terminals")


def read_columns(path: Path) -> tuple[dict[str, NDArray], dict[str, object]]:
    """Returns the columns that the file has, float32 or bool, and its root attributes.

    Raises:
        DatasetError: no such file, not HDF5, a required column missing, or shapes disagree.
    """
    try:
        with h5py.File(path) as file:
            missing = [name for name in REQUIRED if name not in file]
            if missing:
                raise DatasetError(
                    f"{path} lacks {', '.join(missing)}; it holds {', '.join(file) or 'nothing'}: "
                    f"convert the logs with `iql-ros convert`, or use D4RL's flat layout"
                )
            columns = {n: read_column(file[n], path) for n in COLUMNS if n in file}
            attributes = dict(file.attrs)
    except OSError as error:
        reason = "does not exist" if not path.exists() else f"is no readable HDF5 file: {error}"
        raise DatasetError(f"dataset {path} {reason}") from error
    _check_shapes(columns, path)
    as_flags = ("terminals", "timeouts")
    types = {name: bool if name in as_flags else np.float32 for name in columns}
    return {n: a.astype(types[n], copy=False) for n, a in columns.items()}, attributes


def _check_shapes(columns: dict[str, NDArray], path: Path) -> None:
    rows = len(columns["observations"]) if columns["observations"].ndim else 0
    if not rows:
        raise DatasetError(f"{path} is empty: 'observations' has no row")
    for name, array in columns.items():
        wide = name in ("observations", "actions", "next_observations")
        rule = f"({rows}, columns)" if wide else f"({rows},)"
        if array.ndim != (2 if wide else 1) or len(array) != rows or 0 in array.shape:
            raise DatasetError(f"{path}: '{name}' has shape {array.shape}, must be {rule}")
    sizes = {n: columns[n].shape for n in ("observations", "next_observations") if n in columns}
    if len(set(sizes.values())) > 1:
        raise DatasetError(f"{path}: shapes must agree, they are {sizes}")


def write_dataset(
    path: Path,
    columns: Mapping[str, NDArray[np.generic]],
    *,
    infos: Mapping[str, NDArray[np.generic]],
    attributes: Mapping[str, str | int],
    force: bool = False,
) -> None:
    """Writes a dataset file; the same content gives the same bytes.

    The file appears under its name only when it is complete.

    Raises:
        DatasetError: the path exists and `force` is not set, or columns differ in length.
    """
    if path.exists() and not force:
        raise DatasetError(f"{path} exists and would be replaced: choose another path, or --force")
    arrays = dict(sorted(columns.items()))
    arrays |= {f"infos/{name}": array for name, array in sorted(infos.items())}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DatasetError(f"{path}: columns must have one length, they have {lengths}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, track_times=False)
            for name, value in sorted(attributes.items()):
                file.attrs[name] = value
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
