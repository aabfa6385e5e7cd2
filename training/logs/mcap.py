"""MCAP: the topics of a file from its summary or, where that is missing, from its chunks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from iql_ros.errors import LogError
from training.logs.buffers import Damaged, Source, crc32
from training.logs.chunked import Format, read_blocks, survey
from training.logs.contents import Contents
from training.logs.log import Log, because, note
from training.logs.mcap_records import (
    CHANNEL,
    CHUNK_INDEX,
    FOOTER,
    INDEX_ENTRY,
    MAGIC,
    MESSAGE_HEAD,
    RECORD,
    SCHEMA,
    STATISTICS,
    Cursor,
    Statistics,
    learn,
    learn_at,
    parse_chunk_index,
    parse_messages,
    parse_statistics,
    walk,
)
from training.logs.mcap_scan import pieces

FOOTER_SIZE = RECORD.size + 20 + len(MAGIC)
# The summary repeats every schema; more than this is no summary.
MAX_SUMMARY = 1 << 26
MCAP = Format(pieces, walk, parse_messages, learn_at, INDEX_ENTRY, MESSAGE_HEAD.itemsize)


def open_mcap(path: Path) -> Log:
    """Opens an MCAP file: finished, unfinished, cut or damaged.

    Raises:
        LogError: the file holds no topic that can be read.
    """
    findings: list[str] = []
    with Source(path) as source:
        contents = _from_summary(source, findings)
        if contents is None:
            contents = Contents(findings)
            survey(source, contents, MCAP)
    if not contents.topics:
        raise LogError(f"{path}: no topic that can be read{because(findings)}")
    read = partial(read_blocks, path, contents, MCAP)
    return Log(path, contents.counted_topics(), findings, contents.start_ns, contents.end_ns, read)


def _from_summary(source: Source, findings: list[str]) -> Contents | None:
    """Topics and counts from the file's summary; None if it is missing or not whole."""
    footer = source.peek(max(0, source.size - FOOTER_SIZE), FOOTER_SIZE)
    if len(footer) < FOOTER_SIZE or not footer.endswith(MAGIC) or footer[0] != FOOTER:
        return None
    start, crc = int.from_bytes(footer[9:17], "little"), int.from_bytes(footer[25:29], "little")
    end = source.size - FOOTER_SIZE
    if not len(MAGIC) <= start <= end or end - start > MAX_SUMMARY:
        return None
    summary = source.peek(start, end - start)
    if crc and crc32(summary + footer[:25]) != crc:
        note(findings, "the summary at the file's end fails its CRC: the chunks were scanned")
        return None
    contents = Contents([])
    try:
        statistics, chunked = _take_summary(summary, contents)
    except Damaged:
        note(findings, "the summary at the file's end is damaged: the chunks were scanned")
        return None
    complete = statistics is None or statistics.channels == len(contents.kinds)
    has_schemas = all(topic.msgtype for topic in contents.kinds.values())
    if not (contents.kinds and complete and has_schemas and chunked <= contents.kinds.keys()):
        return None
    contents.is_counted = statistics is not None
    if statistics is not None:
        contents.counts.update(statistics.counts)
        contents.widen(statistics.start_ns, statistics.end_ns)
    findings += contents.findings
    contents.findings = findings
    return contents


def _take_summary(summary: bytes, contents: Contents) -> tuple[Statistics | None, set[int]]:
    """Learns a summary's records; returns its statistics, and the channels its chunks name."""
    cursor = Cursor(summary)
    statistics: Statistics | None = None
    chunked: set[int] = set()
    while not cursor.is_done():
        opcode, content = cursor.number(1), cursor.raw(cursor.number(8))
        if opcode in (SCHEMA, CHANNEL):
            learn(contents, opcode, content)
        elif opcode == STATISTICS:
            statistics = parse_statistics(content)
        elif opcode == CHUNK_INDEX:
            start_ns, end_ns, channels = parse_chunk_index(content)
            contents.widen(start_ns, end_ns)
            chunked.update(channels)
    return statistics, chunked
