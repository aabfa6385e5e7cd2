"""One contestant of `benchmarks.convert`, in a process of its own: `NAME LOG OUT`.

Prints the CPU seconds of the work, children included, those of the start before it, and the
peak resident memory.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np


def main() -> None:
    name, log, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    start = {"ours": _ours, "rosbags": _rosbags, "floor": _floor, "checked": _checked}[name]
    work = start(log, out)
    begun = _cpu_s()
    work()
    print(json.dumps({"cpu_s": _cpu_s() - begun, "start_s": begun, "rss_mb": _peak_mb()}))


def _ours(log: Path, out: Path):  # type: ignore[no-untyped-def]
    """Log to finished HDF5 and report."""
    from benchmarks._robot_logs import contract
    from training.conversion.convert import convert

    robot = contract()
    return lambda: convert([log], robot, out, jobs=1)


def _rosbags(log: Path, out: Path):  # type: ignore[no-untyped-def]
    """The same topics to message objects, which are dropped."""
    from rosbags.highlevel import AnyReader

    from benchmarks._robot_logs import WANTED

    def work() -> None:
        with AnyReader([log]) as reader:
            wanted = [each for each in reader.connections if each.topic in WANTED]
            for connection, _, raw in reader.messages(wanted):
                reader.deserialize(raw, connection.msgtype)

    return work


def _checked(log: Path, out: Path):  # type: ignore[no-untyped-def]
    """The floor, and the CRC of each chunk; a database has none."""
    return _floor(log, out, checks=True)


def _floor(log: Path, out: Path, *, checks: bool = False):  # type: ignore[no-untyped-def]
    """Each chunk read and decompressed into the same buffers, or each wanted row fetched."""
    from benchmarks._robot_logs import WANTED
    from training.logs.buffers import Scratch, Source, crc32, inflate
    from training.logs.mcap_records import CHUNK, FOOTER, RECORD, chunk_at

    def mcap() -> None:
        # glibc then keeps the pieces that lz4 allocates, as it does in the converter.
        np.empty(1 << 24, np.uint8)
        scratch, position = Scratch(), 8
        with Source(log) as source:
            while True:
                opcode, length = RECORD.unpack(source.peek(position, RECORD.size))
                if opcode == CHUNK:
                    chunk = chunk_at(source, position)
                    packed = source.read(chunk.data_position, chunk.data_size, scratch)
                    data = inflate(chunk.compression, packed, chunk.size, scratch)
                    assert not checks or crc32(data) == chunk.crc
                    del data, packed  # their buffers are used again
                elif opcode == FOOTER:
                    return
                position += RECORD.size + length

    def database() -> None:
        (file,) = log.glob("*.db3")
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            topics = dict(connection.execute("SELECT name, id FROM topics"))
            numbers = ",".join(str(topics[name]) for name in WANTED)
            rows = connection.execute(
                f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({numbers})"
            )
            while rows.fetchmany(128):
                pass

    return database if log.is_dir() else mcap


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mb() -> float:
    """Of this program alone: ru_maxrss would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
