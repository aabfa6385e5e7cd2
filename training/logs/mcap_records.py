"""MCAP records: bytes to values, every length checked against what is there.

Layout: https://mcap.dev/spec. A record is an opcode, a length (u64) and that many bytes; all
numbers are little endian; strings have a length (u32) before them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.wire import Encoding
from training.logs.buffers import Damaged, Source
from training.logs.contents import Contents
from training.logs.log import Topic, normalised, note
from training.logs.records import Chunk, Ints, Messages, Walk

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = range(1, 8)
CHUNK_INDEX, ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA = range(8, 13)
METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(13, 16)
PRIVATE = 0x80

# The schema encodings that are texts of definitions.
DEFINITION_TEXTS = ("ros2msg", "ros1msg", "ros2idl")
RECORD = struct.Struct("<BQ")
# A chunk record up to the name of its compression: times, size, CRC, that name's length.
CHUNK_HEAD = struct.Struct("<BQQQQII")
MAX_COMPRESSION_NAME = 16
# A chunk index up to its map from channels to the positions of their indexes.
CHUNK_INDEX_HEAD = struct.Struct("<QQ16xI")
CHANNEL_OFFSET = struct.Struct("<HQ")
MESSAGE_HEAD = np.dtype(
    [
        ("opcode", "u1"),
        ("length", "<u8"),
        ("channel", "<u2"),
        ("sequence", "<u4"),
        ("t_ns", "<u8"),
        ("published_ns", "<u8"),
    ]
)
"""A message record up to its payload."""
LEAST_MESSAGE = MESSAGE_HEAD.itemsize - RECORD.size
INDEX_ENTRY = np.dtype([("t_ns", "<u8"), ("offset", "<u8")])


class Cursor:
    """Reads values one after another; Damaged at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._position >= len(self._data)

    def raw(self, length: int) -> bytes:
        """The next bytes."""
        end = self._position + length
        if end > len(self._data):
            raise Damaged(f"a record of {len(self._data)} bytes ends within a value")
        self._position, start = end, self._position
        return self._data[start:end]

    def number(self, size: int) -> int:
        """The next number, of `size` bytes."""
        return int.from_bytes(self.raw(size), "little")

    def text(self) -> str:
        """The next string."""
        return self.raw(self.number(4)).decode(errors="replace")

    def pairs(self, key: int, value: int) -> dict[int, int]:
        """A map of numbers of the given sizes."""
        inner = Cursor(self.raw(self.number(4)))
        found: dict[int, int] = {}
        while not inner.is_done():
            name = inner.number(key)
            found[name] = inner.number(value)
        return found


@dataclass(frozen=True)
class Statistics:
    """What a finished file counts of itself; `counts` are by channel."""

    start_ns: int
    end_ns: int
    channels: int
    counts: dict[int, int]


def learn(contents: Contents, opcode: int, content: bytes) -> None:
    """Takes in a schema or a channel record."""
    cursor = Cursor(content)
    number = cursor.number(2)
    if opcode == SCHEMA:
        name, encoding, text = cursor.text(), cursor.text(), cursor.text()
        schema = (normalised(name), text if encoding in DEFINITION_TEXTS else "")
        if contents.schemas.setdefault(number, schema) != schema:
            note(contents.findings, f"schema {number} is defined twice: the first was taken")
        return
    schema = contents.schemas.get(cursor.number(2), ("", ""))
    topic = cursor.text()
    encoding = cast("Encoding", cursor.text())  # `admit` refuses any other
    contents.declare(number, Topic(topic, schema[0], encoding, schema[1], None))


def learn_at(contents: Contents, data: NDArray[np.uint8], position: int) -> None:
    """Takes in the schema or channel record at a position of a chunk."""
    head = data[position : position + RECORD.size].tobytes()
    opcode, length = RECORD.unpack(head)
    begin = position + RECORD.size
    learn(contents, opcode, data[begin : begin + length].tobytes())


def parse_statistics(content: bytes) -> Statistics:
    cursor = Cursor(content)
    cursor.raw(8 + 2)
    channels = cursor.number(4)
    cursor.raw(4 + 4 + 4)
    return Statistics(cursor.number(8), cursor.number(8), channels, cursor.pairs(2, 8))


def parse_chunk_index(content: bytes) -> tuple[int, int, list[int]]:
    """First and last time of a chunk, and the channels whose messages it holds."""
    if len(content) < CHUNK_INDEX_HEAD.size:
        raise Damaged("a chunk index ends within a value")
    start_ns, end_ns, size = CHUNK_INDEX_HEAD.unpack_from(content)
    offsets = content[CHUNK_INDEX_HEAD.size : CHUNK_INDEX_HEAD.size + size]
    whole = len(offsets) // CHANNEL_OFFSET.size * CHANNEL_OFFSET.size
    return start_ns, end_ns, [channel for channel, _ in CHANNEL_OFFSET.iter_unpack(offsets[:whole])]


def chunk_at(source: Source, position: int) -> Chunk:
    """The header of the chunk record at a position; Damaged if its lengths disagree."""
    head = source.peek(position, CHUNK_HEAD.size + MAX_COMPRESSION_NAME + 8)
    if len(head) < CHUNK_HEAD.size + 8:
        raise Damaged("the file ends within a chunk's header")
    _, length, start_ns, end_ns, size, crc, name_size = CHUNK_HEAD.unpack_from(head)
    name_end = CHUNK_HEAD.size + name_size
    packed = int.from_bytes(head[name_end : name_end + 8], "little")
    data_position = position + name_end + 8
    if name_end + 8 > len(head) or data_position + packed != position + RECORD.size + length:
        raise Damaged(f"a chunk of {length} bytes holds {packed}")
    return Chunk(
        position,
        start_ns,
        end_ns,
        head[CHUNK_HEAD.size : name_end].decode(errors="replace"),
        size,
        crc or None,  # the format's word for "no CRC" is 0
        data_position,
        packed,
        is_cut=data_position + packed > source.size,
    )


def walk(data: NDArray[np.uint8], start: int, stop: int) -> Walk:
    """Reads schemas, channels and messages one by one, up to the first that is anything else."""
    view = data.data
    messages: list[int] = []
    definitions: list[int] = []
    position = start
    while position + RECORD.size <= stop:
        opcode, length = RECORD.unpack_from(view, position)
        after = position + RECORD.size + length
        if after > stop:
            break
        if opcode == MESSAGE and length >= LEAST_MESSAGE:
            messages.append(position)
        elif opcode in (SCHEMA, CHANNEL):
            definitions.append(position)
        elif opcode < PRIVATE:
            break
        position = after
    found = parse_messages(data, np.array(messages, np.int64))
    assert found is not None  # each of them was looked at
    return Walk(found, definitions, position)


def parse_messages(data: NDArray[np.uint8], offsets: Ints) -> Messages | None:
    """The messages at sorted offsets, None if there is something else at one of them."""
    size = MESSAGE_HEAD.itemsize
    if not len(offsets) or offsets[-1] > len(data) - size:
        empty = np.empty(0, np.int64)
        return None if len(offsets) else Messages(empty, empty, empty, empty, empty)
    # An item at every byte, each as long as a head: taking some copies them whole.
    heads = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))[offsets]
    heads = heads.view(MESSAGE_HEAD)
    starts = offsets + size
    # Unsigned: a length of 2**63 must not become a negative one that passes.
    lengths = heads["length"] - np.uint64(LEAST_MESSAGE)
    fits = lengths <= (len(data) - starts).view(np.uint64)
    if not (fits & (heads["opcode"] == MESSAGE)).all():
        return None
    sizes = lengths.view(np.int64)
    channels, t_ns = heads["channel"].astype(np.int64), heads["t_ns"].astype(np.int64)
    return Messages(channels, t_ns, starts, sizes, starts + sizes)
