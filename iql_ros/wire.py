"""One reading of the wire: payload bytes to field values and back, without message objects.

The converter reads a whole log, `Reader.read_many`, and the node on the robot
one payload, `Reader.read`, by the same layouts (layout.py): what the policy
sees live cannot differ from what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.errors import LogError
from iql_ros.payloads.layout import Buffer, Layout
from iql_ros.payloads.messages import Encoding, make_types, message_tree
from iql_ros.payloads.targets import find_targets
from iql_ros.payloads.walk import walk
from iql_ros.payloads.writer import Writer

__all__ = ["STAMP", "Encoding", "Payloads", "Reader", "Writer", "make_types"]

STAMP = ["header.stamp.sec", "header.stamp.nanosec"]
"""The paths of a stamped message's time."""

# What a Reader remembers at most. A stream whose layout never repeats (a string
# of changing length before the field) costs a walk per message, not memory.
_MAX_LAYOUTS = 64
_MAX_LAYOUT_BYTES = 1 << 22

# Below this many rows, one by one is faster than a matrix (measured: JointState).
_FEW = 16

# Of 32 to 512 KiB the fastest for a log of small messages; arrays of megabytes cost page faults.
_SLAB_BYTES = 1 << 18


@dataclass(frozen=True)
class Payloads:
    """Many payloads in one buffer.

    Attributes:
        data: The buffer, shape (B,).
        starts: Where each payload begins in it, shape (N,).
        lengths: Bytes of each payload, shape (N,).
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.starts.shape != self.lengths.shape or self.starts.ndim != 1:
            raise LogError(
                f"payloads have starts of shape {self.starts.shape} and lengths of shape "
                f"{self.lengths.shape}: both must be (N,)"
            )
        outside = (
            (self.starts < 0) | (self.lengths < 0) | (self.lengths > len(self.data) - self.starts)
        )
        if outside.any():
            row = int(outside.argmax())
            raise LogError(
                f"payload {row} is bytes {self.starts[row]} to "
                f"{self.starts[row] + self.lengths[row]} of a buffer of {len(self.data)} bytes: "
                "the index of the log is damaged"
            )

    @classmethod
    def from_list(cls, payloads: Sequence[Buffer]) -> Payloads:
        """Copies `payloads` into one buffer."""
        lengths = np.array([len(payload) for payload in payloads], np.int64)
        data = np.frombuffer(b"".join(payloads), np.uint8)
        return cls(data, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> memoryview:
        start = int(self.starts[row])
        return self.data.data[start : start + int(self.lengths[row])]


class Reader:
    """Reads the numbers at `paths` from messages of one type.

    Attributes:
        width: How many numbers, F: the components of all paths, in their order.
    """

    def __init__(
        self, types: Typestore, msgtype: str, paths: Sequence[str], encoding: Encoding = "cdr"
    ) -> None:
        """Checks the paths against the type.

        Raises:
            ContractError: the type is not known, or a path is none of a number in it.
        """
        self._root = message_tree(types, msgtype, encoding)
        self._targets = find_targets(self._root, paths)
        self._encoding = encoding
        self._layouts: dict[int, list[Layout]] = {}
        self._remembered = 0
        self._remembered_bytes = 0
        self.width = len(self._targets)

    @property
    def layouts(self) -> list[Layout]:
        """The layouts of the messages read so far, as far as they are remembered."""
        return [layout for group in self._layouts.values() for layout in group]

    def read(self, payload: Buffer) -> NDArray[np.float64] | None:
        """Reads one payload.

        Returns:
            The values, shape (F,); None if the message lacks one of them: no such
            joint, index out of range. Such a message is to be skipped.

        Raises:
            LogError: the payload is truncated, or is no message of this type.
        """
        layout = self._layout(payload)
        return None if layout.absent is not None else layout.read(payload)

    def why_absent(self, payload: Buffer) -> str:
        """Says which value `payload` lacks; "" if it lacks none."""
        return self._layout(payload).absent or ""

    def read_many(self, payloads: Payloads) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Reads many payloads, each to the same values as `read` gives.

        Returns:
            The values, shape (N, F), NaN where the message lacks one; and whether
            it has them all, shape (N,).

        Raises:
            LogError: as for `read`, with the number of the row.
        """
        values = np.empty((len(payloads), self.width))
        present = np.zeros(len(payloads), np.bool_)
        by_length = np.argsort(payloads.lengths, kind="stable")
        borders = np.flatnonzero(np.diff(payloads.lengths[by_length])) + 1
        for rows in np.split(by_length, borders):
            self._read_rows(payloads, rows, values, present)
        if not present.all():
            values[~present] = np.nan
        values.flags.writeable = present.flags.writeable = False
        return values, present

    def _read_rows(
        self,
        payloads: Payloads,
        rows: NDArray[np.intp],
        values: NDArray[np.float64],
        present: NDArray[np.bool_],
    ) -> None:
        """Reads `rows` of equal length, layout by layout; many layouts, or few rows, singly."""
        for _ in range(_MAX_LAYOUTS):
            if len(rows) < _FEW or not self.width:
                break
            layout = self._row_layout(payloads, int(rows[0]))
            rows = _read_alike(layout, payloads, rows, values, present)
        for row in rows.tolist():
            layout = self._row_layout(payloads, row)
            if layout.absent is None:
                values[row] = layout.read(payloads[row])
                present[row] = True

    def _row_layout(self, payloads: Payloads, row: int) -> Layout:
        try:
            return self._layout(payloads[row])
        except LogError as error:
            raise LogError(f"row {row}: {error}") from None

    def _layout(self, payload: Buffer) -> Layout:
        for layout in self._layouts.get(len(payload), ()):
            if layout.fits(payload):
                return layout
        layout = walk(self._root, self._targets, self._encoding, payload)
        if self._remembered == _MAX_LAYOUTS or self._remembered_bytes > _MAX_LAYOUT_BYTES:
            self._layouts.clear()
            self._remembered = self._remembered_bytes = 0
        self._layouts.setdefault(len(payload), []).append(layout)
        self._remembered += 1
        self._remembered_bytes += layout.reach
        return layout


def _read_alike(
    layout: Layout,
    payloads: Payloads,
    rows: NDArray[np.intp],
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Reads those of `rows` that have this layout; returns the others."""
    others = []
    step = max(1, _SLAB_BYTES // layout.reach)
    for first in range(0, len(rows), step):
        slab = rows[first : first + step]
        gathered = layout.gather(payloads.data, payloads.starts[slab])
        fits = layout.fits_rows(gathered)
        if not fits.all():
            others.append(slab[~fits])
            slab, gathered = slab[fits], gathered[fits]
        if layout.absent is None and len(slab):
            # Ascending, so that mostly they are neighbours: writing to a slice is far faster.
            first_row, last_row = int(slab[0]), int(slab[-1])
            is_slice = last_row - first_row == len(slab) - 1
            where = slice(first_row, last_row + 1) if is_slice else slab
            values[where] = layout.read_rows(gathered)
            present[where] = True
    return np.concatenate(others) if others else rows[:0]
