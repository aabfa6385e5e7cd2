"""How to open a rosbag2 database: where it lies if that is safe, else a temporary copy."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from training.logs.log import note
from training.logs.temporary import TemporaryFolder

# Damage also shows as numbers beyond 64 bits and as error messages that are no UTF-8.
FAULTS = (sqlite3.Error, OverflowError, UnicodeError)


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


def find_database(path: Path, findings: list[str]) -> Database:
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


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
