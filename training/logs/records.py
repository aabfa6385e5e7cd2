"""The pieces that MCAP files and ROS 1 bags are both made of: chunks, and messages in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class IndexEntry:
    """The index of one channel in one chunk: `count` entries, and their bytes."""

    channel: int
    count: int
    content: bytes


@dataclass(frozen=True)
class Chunk:
    """A chunk record as its header describes it.

    `index` is None where the file has none for this chunk. `is_cut`: the file ends within it.
    `crc` is None where the format, or the writer, leaves it out.
    """

    position: int
    start_ns: int | None
    end_ns: int | None
    compression: str
    size: int
    crc: int | None
    data_position: int
    data_size: int
    is_cut: bool = False
    index: tuple[IndexEntry, ...] | None = None


@dataclass(frozen=True)
class Messages:
    """Rows of a chunk; `ends` is where the next record begins. Each of shape (N,)."""

    channels: Ints
    t_ns: Ints
    starts: Ints
    lengths: Ints
    ends: Ints

    def only(self, rows: NDArray[np.bool_]) -> Messages:
        """Those of the rows that a mask (N,) keeps."""
        columns = (self.channels, self.t_ns, self.starts, self.lengths, self.ends)
        return Messages(*(column[rows] for column in columns))


@dataclass(frozen=True)
class Walk:
    """What lies between two positions: messages, the other records' starts, where it ended."""

    messages: Messages
    definitions: list[int]
    end: int


@dataclass(frozen=True)
class Run:
    """Records that lie in the file outside of chunks."""

    position: int
    data: NDArray[np.uint8]
    records: Walk


def is_among(numbers: Ints, known: Sequence[int]) -> NDArray[np.bool_]:
    """Which of the numbers are among those known, ascending: 2 to 5 times as fast as np.isin."""
    if not known:
        return np.zeros(len(numbers), np.bool_)
    table = np.array(known, np.int64)
    same: NDArray[np.bool_] = (
        table[np.minimum(table.searchsorted(numbers), len(table) - 1)] == numbers
    )
    return same
