"""Bytes from disk into buffers that are used again.

Memory that is new costs a page fault every 4 kB: here a copy into a fresh 8 MB array takes
50 times as long as one into an array that was touched before.
"""

from __future__ import annotations

import bz2
import os
import sys
from pathlib import Path
from types import TracebackType

import lz4.frame  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import zstandard
from numpy.typing import NDArray

try:  # 50 GB/s against 4: beside lz4, zlib's would take longer than the decompression
    from isal.isal_zlib import crc32  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from zlib import crc32

__all__ = ["Damaged", "Scratch", "Source", "crc32", "inflate"]

PEEK = 1 << 14
FEED_BYTES = 1 << 17
# Writers make chunks of about a megabyte; this bounds what a damaged size can cost.
MAX_CHUNK = 1 << 28
# More than each format can shrink its best case; a size beyond it is damage.
MAX_RATIO = {"lz4": 256, "zstd": 1 << 16, "bz2": 1 << 16}


class Damaged(Exception):
    """A piece of a log cannot be decoded; its reader skips it and says so."""


def _idle_references() -> int:
    """What getrefcount says, in the loop of `Scratch.take`, of a buffer nobody else refers to."""
    buffers = [np.empty(1, np.uint8)]
    for buffer in buffers:
        return sys.getrefcount(buffer)
    raise AssertionError


IDLE = _idle_references()


class Scratch:
    """Buffers for the chunks of one reading pass."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array (size,) with arbitrary content: an old one, if nothing refers to it now."""
        for buffer in self._buffers:
            # Every view, and every view of a view, keeps a reference to the owner.
            if buffer.size >= size and sys.getrefcount(buffer) == IDLE:
                return buffer[:size]
        fresh = np.empty(max(1 << 16, 1 << (size - 1).bit_length()) if size else 1, np.uint8)
        self._buffers = [*self._buffers[-3:], fresh]
        return fresh[:size]


class Source:
    """Reads at positions of a file; as a context manager it closes the file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._fd).st_size
        self._window, self._window_start = b"", 0

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def peek(self, position: int, length: int) -> bytes:
        """A few bytes at a position, fewer at the end; neighbours come from one read."""
        length = min(length, self.size - position)
        if length <= 0:
            return b""
        start = position - self._window_start
        if start < 0 or start + length > len(self._window):
            self._window = os.pread(self._fd, max(length, PEEK), position)
            self._window_start, start = position, 0
        return self._window[start : start + length]

    def read(self, position: int, length: int, scratch: Scratch) -> NDArray[np.uint8]:
        """Bytes (length,), fewer at the end of the file, in a buffer of `scratch`."""
        buffer = scratch.take(max(0, min(length, self.size - position)))
        filled = 0
        while filled < buffer.size:
            got = os.preadv(self._fd, [buffer.data[filled:]], position + filled)
            if got == 0:
                break
            filled += got
        return buffer[:filled]


def inflate(
    compression: str, packed: NDArray[np.uint8], size: int, scratch: Scratch
) -> NDArray[np.uint8]:
    """Decompresses a chunk.

    Args:
        compression: "", "none", "lz4" (frame), "zstd" or "bz2".
        packed: the compressed bytes.
        size: what it must decompress to, as its header says.
        scratch: gives the buffer of the result where the library can write into one.

    Returns:
        Bytes, shape (size,).

    Raises:
        Damaged: unknown compression, corrupt data, or another size.
    """
    if compression in ("", "none"):
        if packed.size != size:
            raise Damaged(f"it holds {packed.size} bytes, and its header says {size}")
        return packed
    if compression not in MAX_RATIO:
        raise Damaged(f"its compression {compression!r} is not known (lz4, zstd, bz2)")
    if size > min(MAX_CHUNK, packed.size * MAX_RATIO[compression] + PEEK):
        raise Damaged(f"{packed.size} bytes cannot decompress to {size}")
    into = scratch.take(size)
    try:
        filled = INFLATE[compression](packed.data, into.data)
    except (RuntimeError, EOFError, OSError, ValueError, zstandard.ZstdError) as error:
        raise Damaged(f"{compression}: {error}") from None
    if filled != size:
        raise Damaged(f"it does not decompress to the {size} bytes its header says")
    return into


def _zstd(packed: memoryview, into: memoryview) -> int:
    filled = 0
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        while filled < len(into) and (got := reader.readinto(into[filled:])):
            filled += got
        return filled if not reader.read(1) else -1


def _lz4(packed: memoryview, into: memoryview) -> int:
    # In pieces that malloc keeps: 5 times as fast as one result of a megabyte.
    context = lz4.frame.create_decompression_context()
    filled, is_done = 0, False
    for at in range(0, len(packed), FEED_BYTES):
        feed = packed[at : at + FEED_BYTES]
        piece, used, is_done = lz4.frame.decompress_chunk(context, feed)
        filled = _append(into, filled, piece)
        if is_done and at + used < len(packed):
            raise ValueError("its frame ends early")
    if not is_done:
        raise EOFError("its frame does not end")
    return filled


def _bz2(packed: memoryview, into: memoryview) -> int:
    reader = bz2.BZ2Decompressor()
    filled = _append(into, 0, reader.decompress(packed, FEED_BYTES))
    while not reader.eof and not reader.needs_input:
        filled = _append(into, filled, reader.decompress(b"", FEED_BYTES))
    return filled


def _append(into: memoryview, filled: int, piece: bytes) -> int:
    if filled + len(piece) > len(into):
        raise ValueError(f"more than {len(into)} bytes come out")
    into[filled : filled + len(piece)] = piece
    return filled + len(piece)


INFLATE = {"zstd": _zstd, "lz4": _lz4, "bz2": _bz2}
