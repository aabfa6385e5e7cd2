"""The wanted values of a topic, in a temporary file: a log may hold more than memory should.

Steps need few of the rows that they are made from: of a JointState at 500 Hz, one in 25 for a
policy of 20 Hz. Which ones, only the times of all topics tell.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import LogError

Array = NDArray[np.float64]

PICKED = 1 << 10
"""Rows that are fetched before their pages are let go: a few megabytes where these lie apart."""


class FileRows(np.ndarray):
    """Rows (N, W) mapped from a file; those picked by number are copied out of it.

    Nothing of the file then stays resident, as it would with a plain map.
    """

    def __getitem__(self, key: Any) -> Any:
        """Rows in memory by their numbers (M,); any other key as of a plain array."""
        plain = self.view(np.ndarray)
        is_numbers = isinstance(key, np.ndarray) and key.ndim == 1 and key.dtype.kind == "i"
        if not (is_numbers and isinstance(self.base, mmap.mmap)):
            return plain[key]
        picked = np.empty((len(key), self.shape[1]))
        for first in range(0, len(key), PICKED):
            picked[first : first + PICKED] = plain[key[first : first + PICKED]]
            self.base.madvise(mmap.MADV_DONTNEED)
        return picked


class RowFile:
    """Takes rows of `width` values and gives them back as one array."""

    def __init__(self, width: int) -> None:
        self._width, self._count = width, 0
        self._file: BinaryIO | None = None

    def add(self, rows: Array) -> None:
        """Appends rows, shape (N, width).

        Raises:
            LogError: the disk for temporary files is full.
        """
        self._count += len(rows)
        if not rows.size:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="iql_ros_")  # noqa: SIM115
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        except OSError as error:
            raise LogError(
                f"{error.strerror or error}: the values of a log go to temporary files, which did "
                f"not fit into {tempfile.gettempdir()}: set TMPDIR to a larger disk"
            ) from error

    def rows(self) -> Array:
        """All rows, shape (N, width); the file goes when nothing refers to them any more."""
        shape = (self._count, self._width)
        if self._file is None:
            return np.empty(shape)
        with self._file as file:
            return FileRows(shape, buffer=mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
