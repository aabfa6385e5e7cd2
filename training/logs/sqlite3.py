"""rosbag2's sqlite3 storage: read where it lies, a pending write-ahead log included.

Of a database that was cut or damaged, every row is read that SQLite can still reach.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import LogError
from iql_ros.wire import Encoding
from training.logs.buffers import Scratch
from training.logs.database import FAULTS, Database, find_database
from training.logs.gather import Gather
from training.logs.log import Block, Log, Topic, admit, because, normalised, note
from training.logs.records import Messages

MAGIC = b"SQLite format 3\x00"
DEFINITION_TEXTS = ("ros2msg", "ros1msg", "ros2idl")
FIRST_ROW, LAST_ROW = -(1 << 63), (1 << 63) - 1
# What is fetched at once stays in the cache, and few large messages can surprise us.
FETCH_ROWS, FETCH_BYTES = 128, 1 << 18
# A damaged tree can lead to the same rows again and again.
MAX_FAULTS = 1000

Row = tuple[int, int, int, bytes]
Columns = tuple[Any, ...]
"""Ids, topic ids, times and payloads of rows, a tuple each."""


def open_sqlite(path: Path) -> Log:
    """Opens a .db3 file.

    Raises:
        LogError: it is no rosbag2 database, or is damaged beyond its list of topics.
    """
    findings: list[str] = []
    database = find_database(path, findings)
    try:
        with closing(database.connect()) as connection:
            topics, names = _topics(connection, findings)
            start_ns, end_ns = _span(connection)
    except FAULTS as error:
        raise LogError(
            f"{path}: its list of topics cannot be read ({error}){because(findings)}: is it a "
            "rosbag2 database? `sqlite3 FILE .recover` may save more"
        ) from None
    if not topics:
        raise LogError(f"{path}: no topic that can be read{because(findings)}")
    read = partial(_read, database, names, findings)
    return Log(path, topics, findings, start_ns, end_ns, read)


def _topics(
    connection: sqlite3.Connection, findings: list[str]
) -> tuple[dict[str, Topic], dict[int, str]]:
    """Topics by name, and names by the ids of their rows."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = {name for (name,) in connection.execute(query)}
    if not {"topics", "messages"} <= tables:
        raise sqlite3.DatabaseError("no tables named topics and messages")
    definitions: dict[str, str] = {}
    if "message_definitions" in tables:
        definitions = {
            normalised(str(msgtype)): str(text)
            for msgtype, encoding, text in connection.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            if str(encoding) in DEFINITION_TEXTS
        }
    topics: dict[str, Topic] = {}
    names: dict[int, str] = {}
    rows = connection.execute("SELECT id, name, type, serialization_format FROM topics")
    for number, name, kind, encoding in rows:
        msgtype = normalised(str(kind))
        written = cast("Encoding", str(encoding))  # `admit` refuses any other
        topic = Topic(str(name), msgtype, written, definitions.get(msgtype, ""), None)
        if isinstance(number, int) and admit(topic, topics, findings):
            names[number] = topic.name
    return topics, names


def _span(connection: sqlite3.Connection) -> tuple[int | None, int | None]:
    """First and last time, where the index on times gives them without a scan."""
    found: list[int | None] = []
    for order in ("ASC", "DESC"):
        query = f"SELECT timestamp FROM messages INDEXED BY timestamp_idx ORDER BY 1 {order}"
        try:
            row = connection.execute(query + " LIMIT 1").fetchone()
        except FAULTS:
            row = None
        found.append(row[0] if row and isinstance(row[0], int) else None)
    return found[0], found[1]


def _read(
    database: Database, names: dict[int, str], findings: list[str], topics: Collection[str]
) -> Iterator[Block]:
    wanted = {number: name for number, name in names.items() if name in topics}
    if not wanted:
        return
    gather = Gather(wanted, Scratch())
    with closing(database.connect()) as connection:
        for columns in _batches(connection, wanted, findings):
            yield from gather.add(*_joined(columns))
    yield from gather.flush()


def _joined(columns: Columns) -> tuple[NDArray[np.uint8], Messages]:
    """The payloads joined, and the rows as messages in them."""
    _, channels, t_ns, payloads = columns
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    ends = np.cumsum(lengths)
    data = np.frombuffer(b"".join(payloads), np.uint8)
    numbers, times = np.array((channels, t_ns), np.int64)
    return data, Messages(numbers, times, ends - lengths, lengths, ends)


def _batches(
    connection: sqlite3.Connection, wanted: Collection[int], findings: list[str]
) -> Iterator[Columns]:
    """The wanted rows in the order of their ids, past pages that cannot be read."""
    numbers = ",".join(map(str, sorted(wanted)))
    query = (
        "SELECT rowid, topic_id, timestamp, data FROM messages "
        f"WHERE rowid >= ? AND topic_id IN ({numbers}) ORDER BY rowid"
    )
    start = FIRST_ROW
    size = FETCH_ROWS
    for _ in range(MAX_FAULTS):
        try:
            cursor = connection.execute(query, (start,))
            while rows := cursor.fetchmany(size):
                ids = next(zip(*rows, strict=True))
                # A damaged tree can lead to one row twice.
                if ids[0] < start or not all(map(int.__lt__, ids, ids[1:])):
                    raise sqlite3.DatabaseError("its rows are not in order")
                longest = 0
                if (columns := _sound(rows, findings)) is not None:
                    longest = max(map(len, columns[-1]))
                    yield columns
                start = ids[-1] + 1
                size = max(1, min(FETCH_ROWS, FETCH_BYTES // (longest + 1)))
            return
        except FAULTS as error:
            if size > 1:
                size = 1  # up to the fault itself one by one: a failed batch is lost
                continue
            since = "the first" if start == FIRST_ROW else str(start)
            found = _next_readable(connection, start)
            upto = "the end" if found is None else str(found - 1)
            note(findings, f"rows {since} to {upto} of messages cannot be read ({error}): skipped")
            if found is None:
                return
            start, size = found, FETCH_ROWS
    note(findings, f"reading stopped at row {start}, after {MAX_FAULTS} faults")


def _sound(rows: list[Row], findings: list[str]) -> Columns | None:
    """The columns of rows without those that are malformed, None if all are."""
    columns: Columns = tuple(zip(*rows, strict=True))
    ids, _, t_ns, payloads = columns
    if {*map(type, t_ns)} == {int} and {*map(type, payloads)} == {bytes}:
        return columns
    sound = [row for row in rows if type(row[2]) is int and type(row[3]) is bytes]
    lost = len(rows) - len(sound)
    note(findings, f"{lost} of rows {ids[0]} to {ids[-1]} are malformed: skipped")
    return tuple(zip(*sound, strict=True)) if sound else None


def _next_readable(connection: sqlite3.Connection, row: int) -> int | None:
    """The first row after damaged ones: found by doubling the step, then by halving it."""
    step = 1
    while not _reads(connection, row + step):
        step *= 2
        if row + step > LAST_ROW:
            return None
    low, high = step // 2, step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reads(connection, row + middle) else (middle, high)
    return row + high


def _reads(connection: sqlite3.Connection, row: int) -> bool:
    query = "SELECT rowid, data FROM messages WHERE rowid >= ? ORDER BY rowid LIMIT 1"
    try:
        return connection.execute(query, (row,)).fetchone() is not None
    except FAULTS:
        return False
