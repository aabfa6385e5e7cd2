"""Reads what a foreign file must hold, or says which key of which file is amiss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import DatasetError

Floats = NDArray[np.float32]


def open_hdf5(path: Path) -> h5py.File:
    """Opens a file for reading. Raises DatasetError if it is missing or not HDF5."""
    try:
        return h5py.File(path)
    except OSError as error:
        reason = "does not exist" if not path.exists() else f"is no readable HDF5 file: {error}"
        raise DatasetError(f"{path} {reason}") from error


def child(group: h5py.Group, key: str, path: Path) -> Any:
    """Returns a group or dataset. Raises DatasetError, naming what is there instead."""
    if key not in group:
        where = group.name.rstrip("/")
        raise DatasetError(
            f"{path} lacks {where}/{key}; {where or '/'} holds {', '.join(group) or 'nothing'}: "
            f"is it of the layout given with --from?"
        )
    return group[key]


def as_floats(values: NDArray[Any], key: str, path: Path, *, rows: int, wide: bool) -> Floats:
    """Checks an array and returns it as float32.

    Args:
        values: what the file holds.
        key: its name, for the error.
        path: its file, for the error.
        rows: the length it must have.
        wide: whether it is (rows, columns) or (rows,).

    Raises:
        DatasetError: another shape, no numbers, or a value that is not finite.
    """
    check_shape(values, key, path, rows=rows, wide=wide)
    if values.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: {key} is of type {values.dtype}, must be numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf, and told below
        floats = values.astype(np.float32, copy=False)
    bad = np.argwhere(~np.isfinite(floats))
    if len(bad):
        raise DatasetError(
            f"{path}: {key}{bad[0].tolist()} is {values[tuple(bad[0])]}, {len(bad)} value(s) of "
            f"its kind: every value must be finite in float32; drop that episode"
        )
    return floats


def as_flags(values: NDArray[Any], key: str, path: Path, *, rows: int) -> NDArray[np.bool_]:
    """Checks an array of rows yes-or-no values, of any numeric type, and returns it as bool."""
    check_shape(values, key, path, rows=rows, wide=False)
    return values.astype(np.bool_, copy=False)


def as_actions(
    values: NDArray[Any], key: str, path: Path, *, rows: int, contract: Contract | None = None
) -> Floats:
    """As `as_floats`; integers, one a row, are numbers of the contract's choices, from 0.

    Raises:
        DatasetError: also integers without a contract that says what they stand for.
    """
    if values.dtype.kind in "iub":
        if contract is None or contract.choices is None:
            raise DatasetError(
                f"{path}: {key} is of type {values.dtype}, discrete actions: give a contract "
                f"(--contract) whose action lists the choices that they number"
            )
        numbers = values[:, 0] if values.shape[1:] == (1,) else values
        check_shape(numbers, key, path, rows=rows, wide=False)
        bad = np.flatnonzero((numbers < 0) | (numbers >= len(contract.choices)))
        if len(bad):
            raise DatasetError(
                f"{path}: {key}[{bad[0]}] is {numbers[bad[0]]}, {len(bad)} value(s) of its kind: "
                f"the contract's action has {len(contract.choices)} choices, numbered from 0"
            )
        return contract.choices[numbers.astype(np.int64)][:, None].astype(np.float32)
    return as_floats(values, key, path, rows=rows, wide=True)


def check_shape(values: NDArray[Any], key: str, path: Path, *, rows: int, wide: bool) -> None:
    """Raises DatasetError unless the shape is (rows, columns), or (rows,)."""
    if values.ndim != (2 if wide else 1) or len(values) != rows or 0 in values.shape[1:]:
        rule = f"({rows}, columns)" if wide else f"({rows},)"
        raise DatasetError(f"{path}: {key} has shape {values.shape}, must be {rule}")


def row_infos(group: h5py.Group, rows: int) -> dict[str, NDArray[Any]]:
    """Numbers below `group/infos` with an entry for each row; one entry more is cut off."""
    found: dict[str, NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        numbers = isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf"
        if numbers and item.shape and item.shape[0] in (rows, rows + 1):
            found[name] = item[:rows]

    if isinstance(group.get("infos"), h5py.Group):
        group["infos"].visititems(visit)
    return found
