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


class McapEncoder:
    """The bytes of a file as its messages come: `head`, `message` of each, `tail`."""

    def __init__(self, channels: Iterable[Channel]) -> None:
        """Numbers the channels, all of CDR."""
        self._numbers: dict[str, int] = {}
        self._kinds: list[bytes] = []
        for number, channel in enumerate(channels, 1):
            self._numbers[channel.topic] = number
            definition = channel.definition.encode()
            schema = struct.pack("<H", number) + _text(channel.msgtype) + _text("ros2msg")
            text = struct.pack("<I", len(definition)) + definition
            self._kinds.append(_record(SCHEMA, schema + text))
            head = struct.pack("<HH", number, number)
            channel_record = head + _text(channel.topic) + _text("cdr") + bytes(4)
            self._kinds.append(_record(CHANNEL, channel_record))
        self._counts = dict.fromkeys(self._numbers.values(), 0)
        self._total, self._first_ns, self._last_ns = 0, (1 << 64) - 1, 0

    def head(self) -> bytes:
        """What a file begins with."""
        return b"".join([MAGIC, _record(HEADER, _text("ros2") + _text("iql_ros")), *self._kinds])

    def message(self, message: Message) -> bytes:
        """One message; its topic must be one of the channels."""
        number, t_ns = self._numbers[message.topic], max(0, message.t_ns)
        self._counts[number] += 1
        self._first_ns, self._last_ns = min(self._first_ns, t_ns), max(self._last_ns, t_ns)
        head = _MESSAGE.pack(number, self._total & 0xFFFFFFFF, t_ns, t_ns)
        self._total += 1
        return _RECORD.pack(MESSAGE, len(head) + len(message.data)) + head + message.data

    def tail(self, size: int) -> bytes:
        """What a file ends with, after `size` bytes of head and messages."""
        end = _record(DATA_END, bytes(4))
        times = (self._first_ns if self._total else 0, self._last_ns)
        by_channel = b"".join(struct.pack("<HQ", *pair) for pair in self._counts.items())
        kinds = len(self._numbers)
        statistics = struct.pack("<QHIIIIQQ", self._total, kinds, kinds, 0, 0, 0, *times)
        statistics += struct.pack("<I", len(by_channel)) + by_channel
        footer = _record(FOOTER, struct.pack("<QQI", size + len(end), 0, 0))
        return b"".join([end, *self._kinds, _record(STATISTICS, statistics), footer, MAGIC])


def encode_mcap(channels: Iterable[Channel], messages: Iterable[Message]) -> bytes:
    """The bytes of a file with the messages in the order given, on channels of CDR."""
    encoder = McapEncoder(channels)
    body = b"".join([encoder.head(), *map(encoder.message, messages)])
    return body + encoder.tail(len(body))


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
