from __future__ import annotations

from pathlib import Path

import pytest

from iql_ros.errors import LogError
from tests.small_logs import TOPICS, messages, ros1_record, rows_of, write_ros1
from training.logs import open_log

COMPRESSIONS = ["none", "bz2", "lz4"]
BAG_HEADER_END = 13 + 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.bag"


def chunk_positions(path: Path) -> list[int]:
    """Where the chunk records begin: a header of 40 or 41 bytes before its first field, op."""
    data = path.read_bytes()
    found, at = [], 0
    while (at := data.find(b"\4\0\0\0op=\5", at + 1)) >= 0:
        found.append(at - 4)
    return found


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_all_rows_are_read(path: Path, compression: str) -> None:
    write_ros1(path, compression)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert log.findings == []
    assert (log.start_ns, log.end_ns) == (messages()[0][1], messages()[-1][1])
    topic = log.topics["/joints"]
    assert (topic.msgtype, topic.encoding) == (TOPICS["/joints"], "ros1")
    assert topic.definition == "float64 data\n"
    assert topic.count == sum(row[0] == "/joints" for row in messages())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bag_that_was_never_closed_is_read(path: Path, compression: str) -> None:
    write_ros1(path, compression)
    data = path.read_bytes()
    at = data.index(b"index_pos=") + 10
    path.write_bytes(data[:at] + bytes(8) + data[at + 8 :])
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert "never closed" in log.findings[0]


def test_cut_bag_gives_its_whole_chunks(path: Path) -> None:
    write_ros1(path, "lz4")
    third = chunk_positions(path)[2]
    path.write_bytes(path.read_bytes()[: third + 500])
    log = open_log(path)
    assert (
        sorted(rows_of(log)) == messages()[:120]
        or sorted(rows_of(log), key=lambda row: row[1]) == messages()[:120]
    )
    assert any(f"the chunk at byte {third} needs" in finding for finding in log.findings)


def test_bag_cut_in_its_first_chunk_names_the_remedy(path: Path) -> None:
    write_ros1(path, "none")
    path.write_bytes(path.read_bytes()[: BAG_HEADER_END + 1000])
    with pytest.raises(LogError, match=r"cut.*`rosbag reindex log.bag`"):
        open_log(path)


@pytest.mark.parametrize("compression", ["bz2", "lz4"])
def test_damaged_chunk_alone_is_lost(path: Path, compression: str) -> None:
    write_ros1(path, compression)
    second = chunk_positions(path)[1]
    data = bytearray(path.read_bytes())
    data[second + 200 : second + 240] = bytes(40)
    path.write_bytes(data)
    log = open_log(path)
    assert set(rows_of(log)) <= set(messages()[:60] + messages()[120:]) or log.findings
    assert any(f"the chunk at byte {second}" in finding for finding in log.findings)


def test_damaged_record_length_costs_one_chunk(path: Path) -> None:
    write_ros1(path, "none")
    second = chunk_positions(path)[1]
    data = bytearray(path.read_bytes())
    data[second : second + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages()[:60] + messages()[120:])
    assert any(f"bytes {second} to" in finding for finding in log.findings)


def test_wrong_index_is_not_believed(path: Path) -> None:
    write_ros1(path, "none")
    data = bytearray(path.read_bytes())
    at = data.index(b"\4\0\0\0op=\4")
    first_offset = data.index(b"count=", at) + 6 + 4 + 4 + 8
    data[first_offset : first_offset + 4] = b"\x11\0\0\0"
    path.write_bytes(data)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert any("index of the chunk" in finding for finding in log.findings)


def test_encrypted_bag_is_refused(path: Path) -> None:
    fields = {"op": b"\3", "index_pos": bytes(8), "conn_count": bytes(4), "chunk_count": bytes(4)}
    encrypted = ros1_record(b"", **fields, encryptor=b"rosbag/AesCbcEncryptor")
    path.write_bytes(b"#ROSBAG V2.0\n" + encrypted)
    with pytest.raises(LogError, match="encrypted with 'rosbag/AesCbcEncryptor'"):
        open_log(path)


def test_older_version_names_the_remedy(path: Path) -> None:
    path.write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    with pytest.raises(LogError, match=r"version 1\.2.*rosbag fix"):
        open_log(path)
