"""What a robot log is, whatever its storage: topics, and blocks of raw messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from iql_ros.errors import LogError
from iql_ros.wire import Payloads

ENCODINGS = ("cdr", "ros1")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# No message of a robot is larger; it bounds what a damaged length can make us allocate.
MAX_MESSAGE = 1 << 28


@dataclass(frozen=True)
class Topic:
    """One topic of a log.

    `encoding` is "cdr" or "ros1"; `definition` is the embedded text (.msg, or IDL when it
    holds "IDL: " headers), "" where the log has none; `count` is None until all is read.
    """

    name: str
    msgtype: str
    encoding: str
    definition: str
    count: int | None


@dataclass(frozen=True)
class Block:
    """Some messages of one topic, in file order.

    `t_ns` (N,) int64 are receive times. The payloads may lie between bytes of other topics
    in a buffer that is used again once nothing refers to it: take what is needed from a
    block and let it go, or memory grows with the file.
    """

    topic: str
    t_ns: NDArray[np.int64]
    payloads: Payloads


@dataclass(frozen=True)
class Log:
    """A log that is open for reading.

    `findings` are sentences about damage and decisions; reading adds to them. `start_ns` and
    `end_ns` are None where only reading everything would tell.
    """

    path: Path
    topics: dict[str, Topic]
    findings: list[str]
    start_ns: int | None
    end_ns: int | None
    read: Callable[[Collection[str]], Iterator[Block]] = field(repr=False)

    def blocks(self, topics: Collection[str]) -> Iterator[Block]:
        """Messages of the topics: blocks of one topic in file order, not sorted in time.

        Raises:
            LogError: a topic is not in the log, or none of them has a message that can be read.
        """
        wanted = frozenset(topics)
        if missing := sorted(wanted - self.topics.keys()):
            raise LogError(
                f"{self.path}: no topic {missing[0]!r}; it has {_listed(sorted(self.topics))}"
            )
        return self._counted(wanted)

    def _counted(self, wanted: frozenset[str]) -> Iterator[Block]:
        rows: Counter[str] = Counter()
        blocks = self.read(wanted)
        while (block := self._next(blocks)) is not None:
            plain = _decompressed(block, self.findings) if _is_compressed(block) else block
            rows[block.topic] += len(plain.t_ns)
            yield plain
            del block, plain  # a buffer that nothing refers to is used again
        for name in sorted(wanted):
            count = self.topics[name].count
            if count is not None and rows[name] != count:
                note(self.findings, f"topic {name}: {rows[name]} of {count} messages were read")
            elif not rows[name]:
                note(self.findings, f"topic {name} has no message")
        if wanted and not rows.total():
            raise LogError(
                f"{self.path}: no message of {_listed(sorted(wanted))} can be read"
                f"{because(self.findings)}"
            )

    def _next(self, blocks: Iterator[Block]) -> Block | None:
        try:
            return next(blocks, None)
        except OSError as error:
            raise LogError(f"{self.path}: {error.strerror or error} while reading") from error


def note(findings: list[str], text: str) -> None:
    """Adds a finding once, however often the log is read."""
    if text not in findings:
        findings.append(text)


def because(findings: list[str]) -> str:
    """The findings as the end of an error's sentence."""
    return f" ({'; '.join(findings[:3])})" if findings else ""


def admit(topic: Topic, topics: dict[str, Topic], findings: list[str]) -> bool:
    """Adds a topic to those of a log; says why, if its messages cannot be read."""
    known = topics.get(topic.name)
    if topic.encoding not in ENCODINGS:
        note(
            findings,
            f"topic {topic.name} is encoded as {topic.encoding!r}, not cdr or ros1: skipped",
        )
        return False
    if topic.msgtype.count("/") != 2:
        note(findings, f"topic {topic.name} has type {topic.msgtype!r}, not pkg/msg/Type: skipped")
        return False
    if known is None:
        topics[topic.name] = topic
        return True
    same_text = not known.definition or not topic.definition or known.definition == topic.definition
    if (known.msgtype, known.encoding) != (topic.msgtype, topic.encoding) or not same_text:
        note(
            findings,
            f"topic {topic.name} is {known.msgtype} ({known.encoding}), but a second publisher's "
            f"is {topic.msgtype} ({topic.encoding}) or is defined otherwise: the second skipped",
        )
        return False
    return True


def normalised(msgtype: str) -> str:
    """The type as pkg/msg/Type, from ROS 1's pkg/Type or DDS' pkg::msg::Type."""
    parts = msgtype.replace("::", "/").split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else "/".join(parts)


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def _is_compressed(block: Block) -> bool:
    """Whether the messages were compressed one by one, as rosbag2 can be told to.

    Neither CDR nor ROS 1 gives a meaning to zstd's magic: 0xb528 is no CDR encapsulation.
    """
    data, starts = block.payloads.data, block.payloads.starts
    start = int(starts[0]) if len(starts) else 0
    return bool(len(starts)) and data[start : start + 4].tobytes() == ZSTD_MAGIC


def _decompressed(block: Block, findings: list[str]) -> Block:
    """The block with each of its messages decompressed; what cannot be is left out."""
    plain: list[bytes] = []
    kept: list[int] = []
    data = block.payloads.data.data
    starts, lengths = block.payloads.starts.tolist(), block.payloads.lengths.tolist()
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        packed = data[start : start + length]
        try:
            if zstandard.frame_content_size(packed) > MAX_MESSAGE:
                raise zstandard.ZstdError("its size is absurd")
            plain.append(zstandard.ZstdDecompressor().decompress(packed, MAX_MESSAGE))
            kept.append(row)
        except zstandard.ZstdError as error:
            note(findings, f"topic {block.topic}: a message cannot be decompressed: {error}")
    return Block(block.topic, block.t_ns[kept], Payloads.from_list(plain))
