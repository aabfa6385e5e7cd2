"""One walk along an MCAP file, past damage, to its end or to where it was cut.

It needs no summary, so a finished file, one whose recorder was killed, and one that is cut
or damaged are all read in the same way.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace

from training.logs.buffers import MAX_CHUNK, Damaged, Scratch, Source
from training.logs.contents import Contents
from training.logs.log import note
from training.logs.mcap_records import (
    ATTACHMENT,
    CHANNEL,
    CHUNK,
    DATA_END,
    FOOTER,
    HEADER,
    INDEX_ENTRY,
    LEAST_MESSAGE,
    MAGIC,
    MESSAGE,
    MESSAGE_INDEX,
    METADATA,
    PRIVATE,
    RECORD,
    SCHEMA,
    chunk_at,
    walk,
)
from training.logs.records import Chunk, IndexEntry, Run

# Records outside chunks are walked in pieces of this size.
RUN_BYTES = 1 << 22
SEARCH_BYTES = 1 << 20
INDEX_HEAD = struct.Struct("<BQHI")
# Opcode, a length below 2**40, times, size and CRC, then one of the three compressions.
LOOKS_LIKE_CHUNK = re.compile(
    rb"\x06.{5}\x00{3}.{28}(?:\x00{4}|\x03\x00{3}lz4|\x04\x00{3}zstd)", re.DOTALL
)
LOOKS_LIKE_MESSAGE = re.compile(rb"\x05.{5}\x00{3}", re.DOTALL)


def pieces(source: Source, contents: Contents, scratch: Scratch) -> Iterator[Chunk | Run]:
    """Chunks and runs of unchunked records, in file order; damage goes to the findings."""
    findings = contents.findings
    position = len(MAGIC)
    chunked: bool | None = None
    while True:
        head = source.peek(position, RECORD.size)
        if len(head) < RECORD.size:
            note(findings, f"the file ends at byte {source.size} without a footer: not closed, cut")
            return
        opcode, length = RECORD.unpack(head)
        after = position + RECORD.size + length
        if _is_end(source, opcode, after):
            return
        try:
            if opcode == CHUNK:
                chunk = chunk_at(source, position)
                chunked = True
                if chunk.is_cut:
                    note(findings, f"the file ends within the chunk at byte {position}: cut")
                    yield chunk
                    return
                index, position = _index_after(source, after)
                yield replace(chunk, index=index)
            elif opcode in (SCHEMA, CHANNEL, MESSAGE) and after <= source.size:
                chunked = chunked or (False if opcode == MESSAGE else None)
                run = _run_at(source, position, opcode, length, scratch)
                position += run.records.end
                yield run
            elif opcode in (HEADER, ATTACHMENT, METADATA) and after <= source.size:
                position = after
            elif opcode >= PRIVATE and after <= source.size:
                note(findings, f"the record at byte {position} is of unknown kind {opcode:#x}")
                position = after
            else:
                raise Damaged(f"opcode {opcode:#x} and {length} bytes make no record here")
        except Damaged as error:
            found = _resume(source, position + 1, chunked)
            upto = f"bytes {position} to {found}" if found < source.size else f"all from {position}"
            note(findings, f"{upto} were skipped as damaged or cut: {error}")
            position = found


def _is_end(source: Source, opcode: int, after: int) -> bool:
    """Whether the data section ends here, and not merely at a byte that was flipped."""
    if opcode == FOOTER:
        return after + len(MAGIC) == source.size
    if opcode != DATA_END:
        return False
    following = source.peek(after, 1)
    ends = (FOOTER, SCHEMA, CHANNEL, *range(MESSAGE_INDEX + 1, DATA_END))
    return following != b"" and following[0] in ends


def _index_after(source: Source, position: int) -> tuple[tuple[IndexEntry, ...] | None, int]:
    """The message indexes that follow a chunk, and where the next other record begins."""
    entries: list[IndexEntry] = []
    while True:
        head = source.peek(position, INDEX_HEAD.size)
        if len(head) < INDEX_HEAD.size or head[0] != MESSAGE_INDEX:
            return tuple(entries) or None, position
        _, length, channel, size = INDEX_HEAD.unpack(head)
        after = position + RECORD.size + length
        is_whole = length == 6 + size and size % INDEX_ENTRY.itemsize == 0
        if not is_whole or size > MAX_CHUNK or after > source.size:
            return None, position  # damaged: the walk along the file finds out how far
        content = source.peek(position + INDEX_HEAD.size, size)
        entries.append(IndexEntry(channel, size // INDEX_ENTRY.itemsize, content))
        position = after


def _run_at(source: Source, position: int, opcode: int, length: int, scratch: Scratch) -> Run:
    whole = RECORD.size + length
    if whole > MAX_CHUNK:
        raise Damaged(f"a record of {length} bytes")
    # Before its first chunk a file has a few schemas: no reason to read megabytes.
    size = max(whole, RUN_BYTES if opcode == MESSAGE else SEARCH_BYTES >> 6)
    data = source.read(position, size, scratch)
    records = walk(data, 0, len(data))
    if records.end == 0:
        raise Damaged(f"a message of {length} bytes is too short for its header")
    return Run(position, data, records)


def _resume(source: Source, position: int, chunked: bool | None) -> int:
    """Where the next sound record begins at or after a position; the file's size if nowhere.

    In a file of chunks only a chunk will do: the messages within a damaged one are lost.
    """
    patterns = [LOOKS_LIKE_CHUNK] if chunked else [LOOKS_LIKE_CHUNK, LOOKS_LIKE_MESSAGE]
    for start in range(position, source.size, SEARCH_BYTES):
        # A pattern that begins in this window may end in the next.
        window = source.peek(start, SEARCH_BYTES + 64)
        found = [_first_sound(source, start, window, pattern) for pattern in patterns]
        if any(at is not None for at in found):
            return min(at for at in found if at is not None)
    return source.size


def _first_sound(
    source: Source, start: int, window: bytes, pattern: re.Pattern[bytes]
) -> int | None:
    match = pattern.search(window)
    while match:
        if _is_sound(source, start + match.start()):
            return start + match.start()
        match = pattern.search(window, match.start() + 1)
    return None


def _is_sound(source: Source, position: int) -> bool:
    """Whether a chunk, or three records in a row, begin at a position."""
    opcode, length = RECORD.unpack(source.peek(position, RECORD.size))
    if opcode == CHUNK:
        try:
            return not chunk_at(source, position).is_cut
        except Damaged:
            return False
    for _ in range(3):
        head = source.peek(position, RECORD.size)
        if len(head) < RECORD.size:
            return False
        opcode, length = RECORD.unpack(head)
        position += RECORD.size + length
        if not HEADER <= opcode <= DATA_END or position > source.size:
            return False
        if opcode == MESSAGE and length < LEAST_MESSAGE:
            return False
    return True
