"""Small MCAP files: written whole, read in the order in which they were written.

Layout: https://mcap.dev/spec. A record is an opcode, a length (u64) and that many bytes; numbers
are little endian, strings have a length (u32) before them. There are no chunks, so that a file
that is cut off can be read up to there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from iql_ros.errors import LogError

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE = 1, 2, 3, 4, 5
STATISTICS, DATA_END = 11, 15
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")


@dataclass(frozen=True)
class Channel:
    """A topic: its name, its message type, and the definition of that in ros2msg."""

    topic: str
    msgtype: str
    definition: str


@dataclass(frozen=True)
class Message:
    """One message: its topic, its time in ns, its bytes."""

    topic: str
    t_ns: int
    data: bytes


def encode_mcap(channels: Iterable[Channel], messages: Iterable[Message]) -> bytes:
    """The bytes of a file with the messages in the order given, on channels of CDR."""
    parts = [MAGIC, _record(HEADER, _text("ros2") + _text("iql_ros"))]
    numbers: dict[str, int] = {}
    kinds: list[bytes] = []
    for number, channel in enumerate(channels, 1):
        numbers[channel.topic] = number
        definition = channel.definition.encode()
        schema = struct.pack("<H", number) + _text(channel.msgtype) + _text("ros2msg")
        kinds.append(_record(SCHEMA, schema + struct.pack("<I", len(definition)) + definition))
        head = struct.pack("<HH", number, number)
        kinds.append(_record(CHANNEL, head + _text(channel.topic) + _text("cdr") + bytes(4)))
    parts += kinds
    counts = dict.fromkeys(numbers.values(), 0)
    first_ns, last_ns = (1 << 64) - 1, 0
    for sequence, message in enumerate(messages):
        number, t_ns = numbers[message.topic], max(0, message.t_ns)
        counts[number] += 1
        first_ns, last_ns = min(first_ns, t_ns), max(last_ns, t_ns)
        head = _MESSAGE.pack(number, sequence & 0xFFFFFFFF, t_ns, t_ns)
        parts.append(_RECORD.pack(MESSAGE, len(head) + len(message.data)) + head + message.data)
    parts.append(_record(DATA_END, bytes(4)))
    summary_start = sum(map(len, parts))
    total = sum(counts.values())
    times = (first_ns if total else 0, last_ns)
    by_channel = b"".join(struct.pack("<HQ", *pair) for pair in counts.items())
    statistics = struct.pack("<QHIIIIQQ", total, len(numbers), len(numbers), 0, 0, 0, *times)
    statistics += struct.pack("<I", len(by_channel)) + by_channel
    parts += [*kinds, _record(STATISTICS, statistics)]
    parts += [_record(FOOTER, struct.pack("<QQI", summary_start, 0, 0)), MAGIC]
    return b"".join(parts)


def decode_mcap(data: bytes, what: str) -> Iterator[Message]:
    """The messages of such a file, in order.

    Args:
        data: the file.
        what: its name, for errors.

    Raises:
        LogError: it is no MCAP file without chunks, or is cut off within a record.
    """
    if not data.startswith(MAGIC):
        raise LogError(f"{what} begins with {data[:8]!r}, an MCAP file begins with {MAGIC!r}")
    topics: dict[int, str] = {}
    at = len(MAGIC)
    while at + _RECORD.size <= len(data):
        opcode, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if opcode == DATA_END:
            return
        if at + length > len(data) or opcode not in (HEADER, SCHEMA, CHANNEL, MESSAGE):
            break
        if opcode == CHANNEL:
            number, _, size = struct.unpack_from("<HHI", data, at)
            topics[number] = data[at + 8 : at + 8 + size].decode()
        elif opcode == MESSAGE:
            number, _, t_ns, _ = _MESSAGE.unpack_from(data, at)
            body = data[at + _MESSAGE.size : at + length]
            yield Message(topics[number], t_ns, body)
        at += length
    raise LogError(f"{what} is cut off or has chunks at byte {at}: only whole black boxes replay")


def _record(opcode: int, content: bytes) -> bytes:
    return _RECORD.pack(opcode, len(content)) + content


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data
