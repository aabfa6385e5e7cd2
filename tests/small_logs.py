"""Small logs of every storage, written record by record, for tests of the readers."""

from __future__ import annotations

import bz2
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from training.logs import Log

Row = tuple[str, int, bytes]
"""Topic, receive time in ns, payload."""

START_NS = 10**18
STEP_NS = 10**7
TOPICS = {"/joints": "sensor_msgs/msg/JointState", "/command": "std_msgs/msg/Float64"}


def messages(count: int = 240) -> list[Row]:
    """Messages of two topics and five lengths, each with its own random bytes."""
    names = list(TOPICS)
    rng = np.random.default_rng(0)
    return [
        (names[i % 3 // 2], START_NS + i * STEP_NS, b"\0\1\0\0" + rng.bytes(40 + i % 5) + bytes(20))
        for i in range(count)
    ]


def rows_of(log: Log, topics: Sequence[str] | None = None) -> list[Row]:
    """Every row of a log, all blocks held until the last is read."""
    blocks = list(log.blocks(log.topics if topics is None else topics))
    return [
        (block.topic, int(t_ns), bytes(block.payloads[row]))
        for block in blocks
        for row, t_ns in enumerate(block.t_ns)
    ]


def write_mcap(
    path: Path,
    compression: CompressionType = CompressionType.NONE,
    rows: Sequence[Row] | None = None,
    chunk_size: int = 6000,
    **options: Any,
) -> None:
    """A finished MCAP file with CRCs, about 60 messages to a chunk."""
    writer = McapWriter(str(path), chunk_size=chunk_size, compression=compression, **options)
    writer.start("ros2", "test")
    channels = {
        name: writer.register_channel(
            name, "cdr", writer.register_schema(msgtype, "ros2msg", b"float64 data\n")
        )
        for name, msgtype in TOPICS.items()
    }
    for name, t_ns, payload in messages() if rows is None else rows:
        writer.add_message(channels[name], t_ns, payload, t_ns)
    writer.finish()


def write_sqlite(path: Path, rows: Sequence[Row] | None = None) -> None:
    """A rosbag2 database of the second schema."""
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT,"
        " serialization_format TEXT, offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,"
        " data BLOB); CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    )
    numbers = {name: number for number, name in enumerate(TOPICS, 1)}
    for name, number in numbers.items():
        row = (number, name, TOPICS[name], "cdr", "")
        connection.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?)", row)
    written = messages() if rows is None else rows
    connection.executemany(
        "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
        [(numbers[name], t_ns, payload) for name, t_ns, payload in written],
    )
    connection.commit()
    connection.close()


def ros1_record(data: bytes, **fields: bytes) -> bytes:
    parts = [name.encode() + b"=" + value for name, value in fields.items()]
    header = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data)) + data


def write_ros1(path: Path, compression: str) -> None:
    """A bag of four chunks with an index, as `rosbag record` lays it out."""
    pack = {"none": bytes, "bz2": bz2.compress, "lz4": lz4.frame.compress}[compression]
    u32: Callable[[int], bytes] = struct.Struct("<I").pack
    numbers = {name: number for number, name in enumerate(TOPICS)}
    connections = {
        name: ros1_record(
            ros1_record(
                b"",
                type=TOPICS[name].replace("/msg/", "/").encode(),
                md5sum=b"*",
                message_definition=b"float64 data\n",
            )[4:-4],
            op=b"\x07",
            conn=u32(number),
            topic=name.encode(),
        )
        for name, number in numbers.items()
    }
    body, infos, at = b"", b"", 13 + 4096
    everything = messages()
    for first in range(0, len(everything), 60):
        chunk = b"".join(connections.values()) if first == 0 else b""
        index: dict[int, bytes] = {}
        stamps = []
        for name, t_ns, payload in everything[first : first + 60]:
            stamp = struct.pack("<II", t_ns // 10**9, t_ns % 10**9)
            number = numbers[name]
            index[number] = index.get(number, b"") + stamp + u32(len(chunk))
            stamps.append(stamp)
            chunk += ros1_record(payload, op=b"\x02", conn=u32(number), time=stamp)
        infos += ros1_record(
            b"".join(u32(number) + u32(len(entries) // 12) for number, entries in index.items()),
            op=b"\x06",
            ver=u32(1),
            chunk_pos=struct.pack("<Q", at + len(body)),
            start_time=stamps[0],
            end_time=stamps[-1],
            count=u32(len(index)),
        )
        body += ros1_record(
            pack(chunk), op=b"\x05", compression=compression.encode(), size=u32(len(chunk))
        )
        for number, entries in index.items():
            count = u32(len(entries) // 12)
            body += ros1_record(entries, op=b"\x04", ver=u32(1), conn=u32(number), count=count)
    fields = {
        "op": b"\x03",
        "index_pos": struct.pack("<Q", at + len(body)),
        "conn_count": u32(len(TOPICS)),
        "chunk_count": u32(len(everything) // 60),
    }
    padding = 4096 - len(ros1_record(b"", **fields))
    header = ros1_record(b" " * padding, **fields)
    path.write_bytes(b"#ROSBAG V2.0\n" + header + body + b"".join(connections.values()) + infos)


def write_zstd(path: Path) -> None:
    plain = path.with_suffix(".plain")
    write_mcap(plain, CompressionType.LZ4)
    path.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
