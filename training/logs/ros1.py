"""ROS 1 bags (.bag, version 2.0): a walk along the chunks, whether or not there is an index.

The index at the file's end only tells topics and counts early. A bag that was never closed has
none; then the chunks tell.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from iql_ros.errors import LogError
from training.logs.buffers import Damaged, Source
from training.logs.chunked import Format, read_blocks, survey
from training.logs.contents import Contents
from training.logs.log import Log, because, note
from training.logs.ros1_records import (
    CHUNK_INFO,
    CONNECTION,
    INDEX_ENTRY,
    LEAST_MESSAGE,
    MAGIC,
    Fields,
    data_of,
    learn,
    learn_at,
    parse_messages,
    record_at,
    time_ns,
    walk,
)
from training.logs.ros1_scan import chunks

ROS1 = Format(chunks, walk, parse_messages, learn_at, INDEX_ENTRY, LEAST_MESSAGE)


def open_ros1(path: Path) -> Log:
    """Opens a ROS 1 bag; one that was never closed is scanned instead of looked up.

    Raises:
        LogError: the bag is encrypted, cut before its first chunk ends, or holds no topic.
    """
    findings: list[str] = []
    remedy = f"`rosbag reindex {path.name}` saves what it can"
    with Source(path) as source:
        try:
            header = record_at(source, len(MAGIC))
        except Damaged as error:
            raise LogError(f"{path}: the bag's header is damaged ({error}): {remedy}") from None
        if header is None or header.end > source.size:
            raise LogError(f"{path}: cut at byte {source.size}, within the bag's header")
        if encryptor := header.fields.get("encryptor", b"").decode(errors="replace"):
            raise LogError(f"{path}: encrypted with {encryptor!r}: `rosbag decrypt` it first")
        contents = _from_index(source, header.fields, findings)
        if contents is None:
            contents = Contents(findings)
            survey(source, contents, ROS1)
    if not contents.topics:
        raise LogError(f"{path}: no topic that can be read{because(findings)}: {remedy}")
    read = partial(read_blocks, path, contents, ROS1)
    return Log(path, contents.counted_topics(), findings, contents.start_ns, contents.end_ns, read)


def _from_index(source: Source, header: Fields, findings: list[str]) -> Contents | None:
    """Topics and counts from the index at the bag's end; None if it is missing or damaged."""
    contents = Contents(findings)
    position = int.from_bytes(header.get("index_pos", b""), "little")
    expected = [int.from_bytes(header.get(n, b""), "little") for n in ("conn_count", "chunk_count")]
    if position == 0:
        note(findings, "the bag was never closed, so it has no index: its chunks were scanned")
        return None
    if position >= source.size:
        note(findings, f"the bag's index should begin at byte {position}, where there is nothing")
        return None
    found = [0, 0]
    try:
        while (record := record_at(source, position)) is not None and record.end <= source.size:
            kind = record.number("op")
            data = data_of(source, record)
            if kind == CONNECTION:
                learn(contents, record.fields, data)
            elif kind == CHUNK_INFO:
                _count(record.fields, data, contents)
            else:
                break
            found[kind == CHUNK_INFO] += 1
            position = record.end
    except Damaged as error:
        note(findings, f"the bag's index is damaged at byte {position}: {error}")
        return None
    if found != expected:
        note(findings, f"the bag's index has {found} connections and chunks, not {expected}")
        return None
    return contents


def _count(fields: Fields, data: bytes, contents: Contents) -> None:
    pairs = np.frombuffer(data[: len(data) // 8 * 8], "<u4").reshape(-1, 2)
    contents.counts.update(dict(pairs.tolist()))
    if len(pairs):
        contents.widen(time_ns(fields, "start_time"), time_ns(fields, "end_time"))
