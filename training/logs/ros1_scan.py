"""One walk along a ROS 1 bag, past damage, to its end or to where it was cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from training.logs.buffers import Damaged, Scratch, Source
from training.logs.contents import Contents
from training.logs.log import note
from training.logs.records import Chunk, IndexEntry, Run
from training.logs.ros1_records import (
    BAG_HEADER,
    CHUNK,
    CHUNK_INFO,
    CONNECTION,
    INDEX,
    INDEX_ENTRY,
    MAGIC,
    chunk_of,
    data_of,
    learn,
    record_at,
)

SEARCH_BYTES = 1 << 20
# A chunk's header: op, compression and size in any order, 40 or 41 bytes.
LOOKS_LIKE_CHUNK = re.compile(
    rb"[\x28\x29]\x00{3}(?:\x04\x00{3}op=\x05|[\x0f\x10]\x00{3}compression=|\x09\x00{3}size=)"
)


def chunks(source: Source, contents: Contents, scratch: Scratch) -> Iterator[Chunk | Run]:
    """The bag's chunks in file order; damage goes to the findings."""
    findings = contents.findings
    position = len(MAGIC)
    while position < source.size:
        try:
            record = record_at(source, position)
            if record is None or (record.end > source.size and record.number("op") != CHUNK):
                note(findings, f"the bag is cut: a record at byte {position} is not whole")
                return
            kind = record.number("op")
            if kind == CHUNK:
                chunk = chunk_of(record, position, source.size)
                if chunk.is_cut and (found := _resume(source, position + 1)) < source.size:
                    raise Damaged(f"{record.data_size} bytes do not fit into the file")
                if chunk.is_cut:
                    there = source.size - chunk.data_position
                    note(
                        findings,
                        f"the bag is cut: the chunk at byte {position} needs {chunk.data_size} "
                        f"bytes and {there} are there",
                    )
                    return
                index, position = _index_after(source, record.end)
                yield replace(chunk, index=index)
                continue
            if kind == CONNECTION:
                data = data_of(source, record)
                learn(contents, record.fields, data)
            elif kind not in (BAG_HEADER, INDEX, CHUNK_INFO):
                raise Damaged(f"a record cannot be of kind {kind} here")
            position = record.end
        except Damaged as error:
            found = _resume(source, position + 1)
            note(findings, f"bytes {position} to {found} are damaged and were skipped: {error}")
            position = found


def _index_after(source: Source, position: int) -> tuple[tuple[IndexEntry, ...] | None, int]:
    """The index records that follow a chunk, and where the next other record begins."""
    entries: list[IndexEntry] = []
    while True:
        try:
            record = record_at(source, position)
            if record is None or record.number("op") != INDEX:
                return tuple(entries) or None, position
            count = record.number("count")
            if record.data_size != count * INDEX_ENTRY.itemsize or record.end > source.size:
                return None, position
            entries.append(IndexEntry(record.number("conn"), count, data_of(source, record)))
        except Damaged:
            return None, position
        position = record.end


def _resume(source: Source, position: int) -> int:
    """Where the next chunk that fits into the file begins; the file's size if nowhere."""
    for start in range(position, source.size, SEARCH_BYTES):
        window = source.peek(start, SEARCH_BYTES + 64)
        for match in LOOKS_LIKE_CHUNK.finditer(window):
            try:
                record = record_at(source, start + match.start())
                if record and record.number("op") == CHUNK and record.end <= source.size:
                    return start + match.start()
            except Damaged:
                continue
    return source.size
