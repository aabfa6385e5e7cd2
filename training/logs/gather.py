"""From messages scattered over chunks to blocks that a caller can work on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from iql_ros.wire import Payloads
from training.logs.buffers import Scratch
from training.logs.log import Block
from training.logs.records import Ints, Messages

# A block of this many bytes amortises what the caller does per block, and stays in the cache.
BLOCK_BYTES = 1 << 21
# With fewer messages of a length, one copy per message is faster than one per length.
FEW_ALIKE = 20


class Gather:
    """Collects the wanted messages of many chunks into blocks.

    A large chunk that is mostly wanted is handed on as it is. The few wanted bytes of one full of
    images are copied together, so that a block never keeps the images alive.
    """

    def __init__(self, names: dict[int, str], scratch: Scratch) -> None:
        self._ids = np.array(sorted(names), np.int64)
        self._names = [names[channel] for channel in sorted(names)]
        self._scratch = scratch
        self._buffer = scratch.take(BLOCK_BYTES)
        self._filled = 0
        self._pending: list[tuple[Ints, Ints, Ints, Ints]] = []

    def add(self, data: NDArray[np.uint8], messages: Messages) -> Iterator[Block]:
        """Takes the wanted ones of a chunk's messages, gives blocks that are full."""
        if not len(self._ids):
            return
        topic = np.minimum(np.searchsorted(self._ids, messages.channels), len(self._ids) - 1)
        rows = np.flatnonzero(self._ids[topic] == messages.channels)
        if not len(rows):
            return
        topic, t_ns = topic[rows], messages.t_ns[rows]
        starts, lengths = messages.starts[rows], messages.lengths[rows]
        total = int(lengths.sum())
        is_mostly_wanted = 2 * total > len(data) > BLOCK_BYTES // 8
        if is_mostly_wanted or total > BLOCK_BYTES:
            yield from self.flush()
            yield from self._blocks(data, topic, t_ns, starts, lengths)
            return
        if self._filled + total > BLOCK_BYTES:
            yield from self.flush()
        into = copied(data, starts, lengths, self._buffer, self._filled)
        self._pending.append((topic, t_ns, into, lengths))
        self._filled += total

    def flush(self) -> Iterator[Block]:
        """Gives what is pending."""
        if self._pending:
            columns = [np.concatenate(column) for column in zip(*self._pending, strict=True)]
            buffer, self._pending = self._buffer, []
            self._buffer, self._filled = self._scratch.take(BLOCK_BYTES), 0
            yield from self._blocks(buffer, *columns)

    def _blocks(
        self, data: NDArray[np.uint8], topic: Ints, t_ns: Ints, starts: Ints, lengths: Ints
    ) -> Iterator[Block]:
        for number in np.flatnonzero(np.bincount(topic)).tolist():
            rows = np.flatnonzero(topic == number)
            payloads = Payloads(data, starts[rows], lengths[rows])
            yield Block(self._names[number], t_ns[rows], payloads)


def copied(
    data: NDArray[np.uint8], starts: Ints, lengths: Ints, out: NDArray[np.uint8], position: int
) -> Ints:
    """Copies payloads into `out` from `position` on; returns where each begins there, (N,)."""
    total = int(lengths.sum())
    if total == len(data):
        out[position : position + total] = data
        return starts + position
    different = set(lengths.tolist())
    if len(lengths) < FEW_ALIKE * len(different):
        pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
        joined = b"".join([data.data[start : start + length] for start, length in pairs])
        out[position : position + len(joined)] = np.frombuffer(joined, np.uint8)
        return position + np.cumsum(lengths) - lengths
    into = np.empty_like(starts)
    for length in different:
        rows = np.flatnonzero(lengths == length)
        into[rows] = position + length * np.arange(len(rows))
        if length:
            # An item at every byte, each as long as a payload: taking some copies them whole.
            items = np.ndarray((len(data) - length + 1,), f"V{length}", data, strides=(1,))
            end = position + length * len(rows)
            out[position:end] = items[starts[rows]].view(np.uint8)
            position = end
    return into
