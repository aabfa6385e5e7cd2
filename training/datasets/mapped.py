"""Columns larger than memory: files mapped into it, worked through in parts.

What a mapped array's pages hold can be dropped from memory and read again; so such a column
never counts against memory, as long as nobody copies it whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

MAPPED_BYTES = 256 << 20  # columns from this size on are mapped
PART_ROWS = 65_536


def read_column(column: h5py.Dataset, path: Path) -> NDArray:
    """Returns a column of the file at `path`; a large one that lies there as it is, mapped."""
    offset = column.id.get_offset()  # None where it is chunked or compressed
    if column.nbytes < MAPPED_BYTES or offset is None:
        return column[()]
    return np.memmap(path, column.dtype, "r", offset, column.shape)


def take_rows(array: NDArray, rows: NDArray[np.int64]) -> NDArray:
    """Returns array[rows]; of a mapped array mapped again, in a file that has no name."""
    if not isinstance(array, np.memmap) or array.nbytes < MAPPED_BYTES:
        return array[rows]
    with tempfile.NamedTemporaryFile(dir=Path(str(array.filename)).parent) as file:
        shape = (len(rows), *array.shape[1:])
        taken = np.memmap(file.name, array.dtype, "w+", shape=shape)
        for start in range(0, len(rows), PART_ROWS):
            part = slice(start, start + PART_ROWS)
            taken[part] = array[rows[part]]
    return taken


def parts(array: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Yields the array's rows, so many at a time, each part with its first row's number."""
    for start in range(0, len(array), PART_ROWS):
        yield start, array[start : start + PART_ROWS]
