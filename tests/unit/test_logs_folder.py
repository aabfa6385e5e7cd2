from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from iql_ros.errors import LogError
from tests.bags import START_NS, TYPES, Entry, float64, payload, write_bag
from tests.small_logs import messages, rows_of, write_mcap, write_ros1, write_zstd
from training.logs import find_logs, open_log

ENTRIES: list[Entry] = [
    ("/speed", "std_msgs/msg/Float64", t_ms, float64(t_ms)) for t_ms in range(50)
]
STORAGES = list(StoragePlugin)


def expected(entries: list[Entry]) -> list[tuple[str, int, bytes]]:
    return [
        (topic, START_NS + int(t_ms) * 10**6, payload(msgtype, fields))
        for topic, msgtype, t_ms, fields in entries
    ]


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.name != "metadata.yaml")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("damage", ["none", "missing", "renamed", "broken", "other yaml"])
def test_folder_is_read_whatever_its_metadata(
    tmp_path: Path, storage: StoragePlugin, damage: str
) -> None:
    bag = write_bag(tmp_path / "bag", ENTRIES, storage)
    metadata = bag / "metadata.yaml"
    if damage == "missing":
        metadata.unlink()
    elif damage == "renamed":
        file = storage_file(bag)
        file.rename(file.with_stem("by_hand"))
    elif damage == "broken":
        metadata.write_text("rosbag2_bagfile_information: [")
    elif damage == "other yaml":
        metadata.write_text("3")
    log = open_log(bag)
    assert rows_of(log) == expected(ENTRIES)
    assert any("metadata.yaml" in finding for finding in log.findings) == (damage != "none")


@pytest.mark.parametrize("storage", STORAGES)
def test_file_compressed_as_a_whole_is_read(tmp_path: Path, storage: StoragePlugin) -> None:
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=storage)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/speed", "std_msgs/msg/Float64", typestore=TYPES)
        for _, t_ns, data in expected(ENTRIES):
            writer.write(connection, t_ns, data)
    assert rows_of(open_log(tmp_path / "bag")) == expected(ENTRIES)
    assert rows_of(open_log(storage_file(tmp_path / "bag"))) == expected(ENTRIES)


def test_split_files_are_one_log_in_order_of_time(tmp_path: Path) -> None:
    # The tenth split sorts before the second by name; its own times put it last.
    for number in (10, 2):
        first = number * 20
        write_mcap(tmp_path / f"run_{number}.mcap", rows=messages()[first : first + 20])
    log = open_log(tmp_path)
    assert sorted(rows_of(log), key=lambda row: row[1]) == messages()[40:60] + messages()[200:220]
    assert rows_of(log, ["/joints"])[0][1] == messages()[40][1]
    counts = [topic.count for topic in log.topics.values()]
    assert sum(count or 0 for count in counts) == 40
    assert log.start_ns == messages()[40][1]


def test_overlapping_splits_are_said(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run_0.mcap", rows=messages()[:30])
    write_mcap(tmp_path / "run_1.mcap", rows=messages()[20:60])
    log = open_log(tmp_path)
    assert len(rows_of(log)) == 70
    assert "run_0.mcap and run_1.mcap overlap by 0.090 s" in log.findings


def test_file_that_lies_there_plain_and_compressed_is_read_once(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run.mcap")
    write_zstd(tmp_path / "run.mcap.zstd")
    assert sorted(rows_of(open_log(tmp_path))) == sorted(messages())


def test_file_that_vanishes_is_named(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run.mcap")
    log = open_log(tmp_path / "run.mcap")
    (tmp_path / "run.mcap").unlink()
    with pytest.raises(LogError, match=r"run\.mcap: No such file"):
        rows_of(log)


def test_unreadable_split_leaves_the_others(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run_0.mcap", rows=messages()[:30])
    (tmp_path / "run_1.mcap").write_bytes(b"")
    log = open_log(tmp_path)
    assert len(rows_of(log)) == 30
    assert any("run_1.mcap: empty" in finding for finding in log.findings)


def test_findings_of_a_split_name_the_file(tmp_path: Path) -> None:
    write_mcap(tmp_path / "run_0.mcap")
    data = (tmp_path / "run_0.mcap").read_bytes()
    (tmp_path / "run_0.mcap").write_bytes(data[: len(data) // 2])
    log = open_log(tmp_path)
    assert any(finding.startswith("run_0.mcap: the file ends") for finding in log.findings)


def test_first_bytes_decide_and_not_the_name(tmp_path: Path) -> None:
    for name, write in (("a.bag", write_mcap), ("b.mcap", write_zstd), ("c.txt", write_ros1)):
        write(tmp_path / name, *(["none"] if write is write_ros1 else []))
        assert sorted(rows_of(open_log(tmp_path / name))) == sorted(messages())


def test_decompressed_copy_goes_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    write_zstd(tmp_path / "log.mcap.zstd")
    log = open_log(tmp_path / "log.mcap.zstd")
    assert len(list(folder.iterdir())) == 1
    del log
    assert list(folder.iterdir()) == []


def test_logs_are_found_once_and_sorted(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "b" / "bag", ENTRIES)
    (tmp_path / "c").mkdir()
    write_mcap(tmp_path / "c" / "one.mcap")
    write_ros1(tmp_path / "a.bag", "none")
    (tmp_path / "notes.txt").write_text("not a log")
    found = find_logs([tmp_path, bag, storage_file(bag), tmp_path / "a.bag"])
    assert found == sorted(
        [tmp_path / "a.bag", bag, storage_file(bag), tmp_path / "c" / "one.mcap"]
    )


def test_files_named_after_their_folder_are_splits_of_one_log(tmp_path: Path) -> None:
    walk = tmp_path / "walk"
    walk.mkdir()
    for number in (0, 1):
        write_mcap(walk / f"walk_{number}.mcap")
    assert find_logs([tmp_path]) == [walk]


def test_unrelated_files_of_one_folder_are_separate_logs(tmp_path: Path) -> None:
    write_mcap(tmp_path / "monday.mcap")
    write_mcap(tmp_path / "tuesday.mcap")
    assert [log.name for log in find_logs([tmp_path])] == ["monday.mcap", "tuesday.mcap"]


@pytest.mark.parametrize(("name", "words"), [("", "holds no log"), ("gone", "does not exist")])
def test_path_without_a_log_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(LogError, match=words) as caught:
        find_logs([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_folder_without_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": {}}))
    with pytest.raises(LogError, match=r"without a \.mcap or \.db3 file"):
        open_log(tmp_path)
