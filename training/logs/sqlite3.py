"""rosbag2's sqlite3 storage: read where it lies, a pending write-ahead log included.

Of a database that was cut or damaged, every row is read that SQLite can still reach.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import LogError
from iql_ros.wire import Encoding
from training.logs.buffers import Scratch
from training.logs.gather import Gather
from training.logs.log import Block, Log, Topic, admit, because, normalised, note
from training.logs.records import Messages
from training.logs.temporary import TemporaryFolder

MAGIC = b"SQLite format 3\x00"
DEFINITION_TEXTS = ("ros2msg", "ros1msg", "ros2idl")
FIRST_ROW, LAST_ROW = -(1 << 63), (1 << 63) - 1
# What is fetched at once stays in the cache, and few large messages can surprise us.
FETCH_ROWS, FETCH_BYTES = 128, 1 << 18
# Damage also shows as numbers beyond 64 bits and as error messages that are no UTF-8.
FAULTS = (sqlite3.Error, OverflowError, UnicodeError)
# A damaged tree can lead to the same rows again and again.
MAX_FAULTS = 1000

Row = tuple[int, int, int, bytes]


@dataclass(frozen=True)
class Database:
    """Where to open: the log itself, or a temporary copy that lives as long as this object."""

    path: Path
    options: str = "?mode=ro"
    folder: TemporaryFolder | None = None

    def connect(self) -> sqlite3.Connection:
        """A connection that cannot write to the log."""
        connection = sqlite3.connect(self.path.as_uri() + self.options, uri=True)
        connection.text_factory = _text  # a damaged name must not stop the reading
        connection.execute("PRAGMA cell_size_check = 1")
        connection.execute("PRAGMA trusted_schema = 0")
        # Nothing is written; but with it, SQLite reads a file that is shorter than its header
        # says, and still refuses each page that is not there.
        connection.execute("PRAGMA writable_schema = 1")
        return connection


def open_sqlite(path: Path) -> Log:
    """Opens a .db3 file.

    Raises:
        LogError: it is no rosbag2 database, or is damaged beyond its list of topics.
    """
    findings: list[str] = []
    database = _database(path, findings)
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


def _database(path: Path, findings: list[str]) -> Database:
    """Decides how to open the file.

    `immutable` would hide what a -wal or -journal beside the file holds; without it a database
    in WAL mode makes SQLite create files there.
    """
    path = path.resolve()  # SQLite looks for the -wal beside the file that a link points to
    with path.open("rb") as file:
        header = file.read(100)
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    expected = page * int.from_bytes(header[28:32], "big")
    pending = [
        side
        for side in (Path(f"{path}-wal"), Path(f"{path}-journal"))
        if side.exists() and side.stat().st_size
    ]
    if pending:
        note(findings, f"messages pending in {pending[0].name} were read with it")
        database = Database(path)
        return database if _opens(database) else _copied(path, pending)
    size = path.stat().st_size
    # The count is valid only if the file's last writer kept it (offsets 24 and 92 agree).
    if header[24:28] == header[92:96] and size < expected:
        note(findings, f"the file ends at byte {size}, its header says {expected}: cut")
        if size % page:
            return _in_whole_pages(path, page)
    in_wal_mode = 2 in header[18:20]
    return Database(path, "?immutable=1" if in_wal_mode else "?mode=ro")


def _opens(database: Database) -> bool:
    try:
        with closing(database.connect()) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except FAULTS:
        return False
    return True


def _copied(path: Path, sides: list[Path]) -> Database:
    """A temporary copy with the files that lie beside it."""
    folder = TemporaryFolder()
    copy = folder.path / path.name
    for file in (path, *sides):
        shutil.copyfile(file, copy.with_name(file.name))
    # What is pending in a journal SQLite undoes first, and that it must write.
    return Database(copy, "" if sides else "?mode=ro", folder)


def _in_whole_pages(path: Path, page: int) -> Database:
    """A temporary copy without the last page, of which a cut has left a part.

    SQLite would fill that page with zeros and find rows in it that nobody wrote.
    """
    database = _copied(path, [])
    os.truncate(database.path, path.stat().st_size // page * page)
    return database


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


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


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
        for rows in _batches(connection, wanted, findings):
            yield from gather.add(*_columns(rows, findings))
    yield from gather.flush()


def _columns(rows: list[Row], findings: list[str]) -> tuple[NDArray[np.uint8], Messages]:
    """The payloads of rows joined, and the rows as messages in them; malformed ones left out."""
    ids, channels, t_ns, payloads = zip(*rows, strict=True)
    if {*map(type, t_ns)} != {int} or {*map(type, payloads)} != {bytes}:
        sound = [row for row in rows if type(row[2]) is int and type(row[3]) is bytes]
        lost = len(rows) - len(sound)
        note(findings, f"{lost} of rows {ids[0]} to {ids[-1]} are malformed: skipped")
        if not sound:
            none = np.empty(0, np.int64)
            return none.view(np.uint8), Messages(none, none, none, none, none)
        ids, channels, t_ns, payloads = zip(*sound, strict=True)
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    ends = np.cumsum(lengths)
    data = np.frombuffer(b"".join(payloads), np.uint8)
    numbers, times = np.array((channels, t_ns), np.int64)
    return data, Messages(numbers, times, ends - lengths, lengths, ends)


def _batches(
    connection: sqlite3.Connection, wanted: Collection[int], findings: list[str]
) -> Iterator[list[Row]]:
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
                if not _ascend(rows, start):
                    raise sqlite3.DatabaseError("its rows are not in order")
                yield rows
                start = rows[-1][0] + 1
                longest = max([len(row[3]) for row in rows if type(row[3]) is bytes], default=0)
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


def _ascend(rows: list[Row], start: int) -> bool:
    """Whether the ids rise from `start` on; a damaged tree can lead to one row twice."""
    ids = [row[0] for row in rows]
    return ids[0] >= start and all(map(int.__lt__, ids, ids[1:]))


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
