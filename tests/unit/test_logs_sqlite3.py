from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from iql_ros.errors import LogError
from tests.bags import write_bag
from tests.small_logs import messages, rows_of, write_sqlite
from training.logs import open_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db3"


def test_all_rows_are_read_in_file_order(path: Path) -> None:
    write_sqlite(path)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert rows_of(log, ["/joints"]) == [row for row in messages() if row[0] == "/joints"]
    assert (log.start_ns, log.end_ns) == (messages()[0][1], messages()[-1][1])
    assert log.findings == []


def test_embedded_definitions_are_found(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin

    entry = ("/speed", "std_msgs/msg/Float64", 0, {"data": 1.0})
    bag = write_bag(tmp_path / "bag", [entry], StoragePlugin.SQLITE3)
    assert "float64 data" in open_log(bag).topics["/speed"].definition


def test_messages_pending_in_the_wal_are_read(path: Path) -> None:
    write_sqlite(path)
    recorder = sqlite3.connect(path)
    recorder.execute("PRAGMA journal_mode = WAL")
    recorder.execute("PRAGMA wal_autocheckpoint = 0")
    pending = [(1, row[1] + 10**12, row[2]) for row in messages()]
    query = "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)"
    recorder.executemany(query, pending)
    recorder.commit()
    # As after a crash: the -wal lies there and nobody will ever check it in.
    killed = path.with_name("killed.db3")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{killed}{suffix}")
    recorder.close()
    log = open_log(killed)
    assert len(rows_of(log)) == 2 * len(messages())
    assert "killed.db3-wal" in log.findings[0]


def test_closed_wal_database_gets_no_files_beside_it(path: Path) -> None:
    write_sqlite(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert len(rows_of(open_log(path))) == len(messages())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_cut_database_gives_what_lies_before_the_cut(path: Path) -> None:
    write_sqlite(path, messages(20_000))
    written = messages(20_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    log = open_log(path)
    read = sorted(rows_of(log), key=lambda row: row[1])
    assert len(read) > 0.58 * len(written)
    assert read == written[: len(read)]
    assert any("cut" in finding for finding in log.findings)
    assert any("to the end of messages cannot be read" in finding for finding in log.findings)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7])
def test_message_that_the_cut_goes_through_is_not_filled_up(path: Path, kept: float) -> None:
    # Longer than a page of 4096 bytes: the row itself lies before the cut, its rest behind.
    rng = np.random.default_rng(0)
    rows = [("/joints", i, rng.bytes(5000 + 3000 * (i % 4))) for i in range(60)]
    write_sqlite(path, rows)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    read = rows_of(open_log(path))
    assert set(read) <= set(rows)
    assert len(read) > (kept - 0.1) * len(rows)


def test_destroyed_page_costs_its_rows_only(path: Path) -> None:
    write_sqlite(path, messages(20_000))
    with path.open("r+b") as file:
        file.seek(200 * 4096)
        file.write(bytes(4096))
    log = open_log(path)
    rows = rows_of(log)
    assert set(rows) < set(messages(20_000))
    assert 19_900 < len(rows) < 20_000
    assert any("cannot be read" in finding for finding in log.findings)


@pytest.mark.parametrize("row", [(1, 5, "text"), (1, 2.5, b"\0\1\0\0"), (1, 5, None)])
def test_malformed_row_is_skipped_and_said(path: Path, row: tuple[object, ...]) -> None:
    write_sqlite(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    connection.commit()
    connection.close()
    log = open_log(path)
    assert len(rows_of(log)) == len(messages())
    assert any("malformed" in finding for finding in log.findings)


def test_other_database_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs(id INTEGER PRIMARY KEY, title TEXT)")
    connection.close()
    with pytest.raises(LogError, match="no tables named topics and messages"):
        open_log(path)
