"""ROS 1 bag records: bytes to values, every length checked against what is there.

Layout: https://wiki.ros.org/Bags/Format/2.0. A record is a header and data, each after its
length (u32); a header is a list of `name=value` fields, each after its length (u32).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.logs.buffers import Damaged, Source
from training.logs.contents import Contents
from training.logs.log import Topic, normalised
from training.logs.records import Chunk, Ints, Messages, Walk

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = range(2, 8)
INDEX_ENTRY = np.dtype([("seconds", "<u4"), ("nanoseconds", "<u4"), ("offset", "<u4")])
# Far above any real header: a connection's holds a topic name, a message's 40 bytes.
MAX_HEADER = 1 << 14
# A connection's data is a definition, an index's entries belong to one chunk.
MAX_DATA = 1 << 24
# A message's header has op, conn and time, with their names and lengths.
LEAST_MESSAGE = 4 + 8 + 13 + 17 + 4
U32 = struct.Struct("<I")

Fields = Mapping[str, bytes]


@dataclass(frozen=True)
class Record:
    """A record whose header lies in the file; its data is at `data_position`."""

    fields: Fields
    data_position: int
    data_size: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.data_position + self.data_size

    def number(self, name: str) -> int:
        """A field of the header that is a number."""
        return number(self.fields, name)


def fields_of(header: bytes) -> dict[str, bytes]:
    """The fields of a header; Damaged if it is none."""
    fields: dict[str, bytes] = {}
    position = 0
    while position < len(header):
        if position + 4 > len(header):
            raise Damaged("a record's header ends within a length")
        (size,) = U32.unpack_from(header, position)
        name, equals, value = header[position + 4 : position + 4 + size].partition(b"=")
        position += 4 + size
        if not equals or position > len(header):
            raise Damaged("a record's header is malformed")
        fields[name.decode(errors="replace")] = value
    return fields


def number(fields: Fields, name: str) -> int:
    if len(fields.get(name, b"")) not in (1, 4, 8):
        raise Damaged(f"a record's header has no number {name!r}")
    return int.from_bytes(fields[name], "little")


def time_ns(fields: Fields, name: str) -> int:
    both = number(fields, name)
    return (both & 0xFFFFFFFF) * 10**9 + (both >> 32)


def record_at(source: Source, position: int) -> Record | None:
    """The record at a position of the file, None at its end; Damaged if there is none."""
    head = source.peek(position, 4)
    if len(head) < 4:
        return None
    (size,) = U32.unpack(head)
    if not 0 < size <= MAX_HEADER:
        raise Damaged(f"a record's header cannot have {size} bytes")
    both = source.peek(position + 4, size + 4)
    if len(both) < size + 4:
        return None
    fields = fields_of(both[:size])
    number(fields, "op")
    return Record(fields, position + 8 + size, U32.unpack_from(both, size)[0])


def data_of(source: Source, record: Record) -> bytes:
    """The data of a small record."""
    if record.data_size > MAX_DATA or record.end > source.size:
        raise Damaged(f"a record of {record.data_size} bytes")
    return source.peek(record.data_position, record.data_size)


def chunk_of(record: Record, position: int, file_size: int) -> Chunk:
    """The chunk that a record of the file is; ROS 1 keeps neither times nor a CRC with it."""
    compression = record.fields.get("compression", b"").decode(errors="replace")
    # Some writers leave a size of 1 in chunks that are not compressed.
    size = record.data_size if compression == "none" else record.number("size")
    return Chunk(
        position,
        None,
        None,
        compression,
        size,
        None,
        record.data_position,
        record.data_size,
        is_cut=record.end > file_size,
    )


def learn(contents: Contents, fields: Fields, data: bytes) -> None:
    """Takes in a connection record."""
    inner = fields_of(data)
    msgtype, definition, topic = (
        values.get(name, b"").decode(errors="replace")
        for values, name in ((inner, "type"), (inner, "message_definition"), (fields, "topic"))
    )
    # ROS 1 let publishers write "odom", "/odom" and "//odom" for one topic.
    name = "/" * topic.startswith("/") + "/".join(part for part in topic.split("/") if part)
    kind = Topic(name, normalised(msgtype), "ros1", definition, None)
    contents.declare(number(fields, "conn"), kind)


def learn_at(contents: Contents, data: NDArray[np.uint8], position: int) -> None:
    """Takes in the connection record at a position of a chunk, where a walk has seen it."""
    (size,) = U32.unpack(data[position : position + 4].tobytes())
    begin = position + 4 + size
    (data_size,) = U32.unpack(data[begin : begin + 4].tobytes())
    fields = fields_of(data[position + 4 : begin].tobytes())
    learn(contents, fields, data[begin + 4 : begin + 4 + data_size].tobytes())


def walk(data: NDArray[np.uint8], start: int, stop: int) -> Walk:
    """Reads connections and messages one by one, up to the first that is anything else."""
    view = data.data
    rows: list[tuple[int, int, int, int, int]] = []
    definitions: list[int] = []
    position = start
    while position + 8 <= stop:
        (size,) = U32.unpack_from(view, position)
        begin = position + 8 + size
        if size > MAX_HEADER or begin > stop:
            break
        end = begin + U32.unpack_from(view, begin - 4)[0]
        if end > stop:
            break
        try:
            fields = fields_of(bytes(view[position + 4 : begin - 4]))
            kind = number(fields, "op")
            if kind == MESSAGE:
                t_ns = time_ns(fields, "time")
                rows.append((number(fields, "conn"), t_ns, begin, end - begin, end))
            elif kind == CONNECTION:
                definitions.append(position)
            else:
                break
        except Damaged:
            break
        position = end
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return Walk(Messages(*columns), definitions, position)


def parse_messages(data: NDArray[np.uint8], offsets: Ints) -> Messages | None:
    """The messages at sorted offsets, None unless all have a header laid out like the first.

    Writers lay out every header in the same way, so the first tells where its values lie and
    the others are compared with it outside of these.
    """
    (size,) = U32.unpack(data[offsets[0] : offsets[0] + 4].tobytes().ljust(4, b"\0"))
    if not 0 < size <= MAX_HEADER or offsets[-1] + 8 + size > len(data):
        return None
    windows = np.ndarray((len(data) - size - 7, size + 8), np.uint8, data, strides=(1, 1))
    heads = windows[offsets]
    first = heads[0].tobytes()
    try:
        fields = fields_of(first[4 : 4 + size])
        if number(fields, "op") != MESSAGE or not {"conn", "time"} <= fields.keys():
            return None
    except Damaged:
        return None
    conn, time = first.find(b"conn=") + 5, first.find(b"time=") + 5
    fixed = np.ones(size + 8, bool)
    for begin, width in ((conn, 4), (time, 8), (4 + size, 4)):
        fixed[begin : begin + width] = False
    if (heads[:, fixed] != heads[0, fixed]).any():
        return None
    seconds, nanoseconds = _column(heads, time), _column(heads, time + 4)
    starts = offsets + 8 + size
    lengths = _column(heads, 4 + size)
    if (lengths > len(data) - starts).any():
        return None
    return Messages(
        _column(heads, conn), seconds * 10**9 + nanoseconds, starts, lengths, starts + lengths
    )


def _column(heads: NDArray[np.uint8], position: int) -> Ints:
    """Numbers (u32) at one position of every row, shape (N,)."""
    four = np.ascontiguousarray(heads[:, position : position + 4])
    return four.view("<u4")[:, 0].astype(np.int64)
