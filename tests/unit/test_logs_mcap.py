from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.records import ChunkIndex
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from iql_ros.errors import LogError
from tests.bags import START_NS, TYPES, float64, payload
from tests.small_logs import STEP_NS, Row, messages, rows_of, write_mcap
from training.logs import open_log

COMPRESSIONS = list(CompressionType)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.mcap"


def chunks(path: Path) -> list[ChunkIndex]:
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    return summary.chunk_indexes


def change(path: Path, position: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[position : position + len(new)] = new
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def in_chunk(rows: list[Row], index: ChunkIndex) -> list[Row]:
    return [row for row in rows if index.message_start_time <= row[1] <= index.message_end_time]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("chunk_size", [1, 500, 6000, 1 << 20])
def test_all_rows_are_read(path: Path, compression: CompressionType, chunk_size: int) -> None:
    write_mcap(path, compression, chunk_size=chunk_size)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert log.findings == []
    assert (log.start_ns, log.end_ns) == (messages()[0][1], messages()[-1][1])
    assert log.topics["/joints"].msgtype == "sensor_msgs/msg/JointState"
    assert log.topics["/joints"].definition == "float64 data\n"
    assert log.topics["/joints"].count == sum(row[0] == "/joints" for row in messages())


@pytest.mark.parametrize("topic", ["/joints", "/command"])
def test_only_the_asked_topic_is_given_in_file_order(path: Path, topic: str) -> None:
    write_mcap(path)
    assert rows_of(open_log(path), [topic]) == [row for row in messages() if row[0] == topic]


@pytest.mark.parametrize(
    "options",
    [
        {"index_types": IndexType.NONE},
        {"use_chunking": False},
        {"use_statistics": False},
        {"repeat_channels": False, "repeat_schemas": False},
        {"enable_crcs": False},
    ],
)
def test_parts_that_a_writer_may_leave_out_are_not_missed(
    path: Path, options: dict[str, object]
) -> None:
    write_mcap(path, CompressionType.ZSTD, **options)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert log.findings == []


def test_held_blocks_stay_as_they_were(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [("/joints", 10**18 + i, rng.bytes(50_000)) for i in range(300)]
    write_mcap(path, CompressionType.LZ4, rows, chunk_size=1 << 20)
    assert rows_of(open_log(path)) == rows  # rows_of looks into no block before it has all


def test_block_does_not_keep_another_topics_images_alive(path: Path) -> None:
    image = bytes(1 << 20)
    rows = [
        row
        for i in range(20)
        for row in (("/joints", i, b"\0\1\0\0" + bytes([i]) * 99), ("/command", i, image))
    ]
    write_mcap(path, CompressionType.NONE, rows, chunk_size=1 << 21)
    blocks = list(open_log(path).blocks(["/joints"]))
    assert sum(len(block.t_ns) for block in blocks) == 20
    assert sum(block.payloads.data.size for block in blocks) < 4 << 20


def test_missing_summary_loses_nothing(path: Path) -> None:
    write_mcap(path, CompressionType.LZ4)
    last = chunks(path)[-1]
    cut(path, last.chunk_start_offset + last.chunk_length + last.message_index_length)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert log.topics["/joints"].count == sum(row[0] == "/joints" for row in messages())
    assert any("without a footer" in finding for finding in log.findings)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_file_gives_everything_before_the_cut(path: Path, compression: CompressionType) -> None:
    write_mcap(path, compression)
    third = chunks(path)[2]
    cut(path, third.chunk_start_offset + third.chunk_length // 2)
    log = open_log(path)
    read = sorted(rows_of(log), key=lambda row: row[1])
    whole = [row for row in messages() if row[1] < third.message_start_time]
    if compression == CompressionType.NONE:  # the whole messages of the partial chunk as well
        assert len(whole) + 20 < len(read) < len(whole) + 40
    else:
        assert len(read) == len(whole)
    assert read == messages()[: len(read)]
    assert any("cut" in finding for finding in log.findings)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_chunk_alone_is_lost_and_its_times_are_said(
    path: Path, compression: CompressionType
) -> None:
    write_mcap(path, compression)
    second = chunks(path)[1]
    change(path, second.chunk_start_offset + second.chunk_length // 2, bytes(range(200, 240)))
    log = open_log(path)
    lost = in_chunk(messages(), second)
    assert sorted(rows_of(log)) == sorted(set(messages()) - set(lost))
    first_s = (second.message_start_time - messages()[0][1]) / 1e9
    last_s = (second.message_end_time - messages()[0][1]) / 1e9
    place = f"the chunk at byte {second.chunk_start_offset} ({first_s:.3f} s to {last_s:.3f} s)"
    assert any(place in finding for finding in log.findings)
    assert any("messages were read" in finding for finding in log.findings)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_length_costs_one_chunk(path: Path, compression: CompressionType) -> None:
    write_mcap(path, compression)
    second = chunks(path)[1]
    change(path, second.chunk_start_offset + 1, struct.pack("<Q", 1 << 60))
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(set(messages()) - set(in_chunk(messages(), second)))
    assert any(f"bytes {second.chunk_start_offset} to" in finding for finding in log.findings)


def test_wrong_index_is_not_believed(path: Path) -> None:
    write_mcap(path)
    first = chunks(path)[0]
    # Opcode, length, channel, size and the first time, then the offset of the first message.
    index = min(first.message_index_offsets.values())
    change(path, index + 1 + 8 + 2 + 4 + 8, struct.pack("<Q", 333))
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert any("index of the chunk" in finding for finding in log.findings)


def test_index_that_leaves_out_messages_is_not_believed(path: Path) -> None:
    write_mcap(path)
    first = chunks(path)[0]
    index = min(first.message_index_offsets.values())
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<I", data, index + 11)
    struct.pack_into("<Q", data, index + 1, 6 + size - 16)
    struct.pack_into("<I", data, index + 11, size - 16)
    end = index + 15 + size
    del data[end - 16 : end]
    path.write_bytes(data)
    log = open_log(path)
    assert sorted(rows_of(log)) == sorted(messages())
    assert any("index of the chunk" in finding for finding in log.findings)


def test_chunk_without_a_wanted_topic_stays_compressed(path: Path) -> None:
    rows = sorted(messages(), key=lambda row: row[0])
    write_mcap(path, CompressionType.ZSTD, rows)
    joints = next(index for index in chunks(path) if set(index.message_index_offsets) == {1})
    change(path, joints.chunk_start_offset + joints.chunk_length - 20, bytes(20))
    for topic, is_damaged in (("/command", False), ("/joints", True)):
        log = open_log(path)
        rows_of(log, [topic])
        assert bool(log.findings) == is_damaged


def test_absurd_size_is_refused_without_memory_for_it(path: Path) -> None:
    write_mcap(path, CompressionType.LZ4)
    first = chunks(path)[0]
    change(path, first.chunk_start_offset + 9 + 16, struct.pack("<Q", 1 << 40))
    log = open_log(path)
    rows_of(log)
    assert any("cannot decompress to" in finding for finding in log.findings)


def test_other_encodings_are_named_and_skipped(path: Path) -> None:
    writer = McapWriter(str(path))
    writer.start()
    for topic, encoding in (("/joints", "cdr"), ("/status", "json"), ("/debug", "protobuf")):
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
        writer.add_message(writer.register_channel(topic, encoding, schema), 1, b"\0\1\0\0", 1)
    writer.finish()
    log = open_log(path)
    assert list(log.topics) == ["/joints"]
    assert "topic /status is encoded as 'json'" in log.findings[0]
    assert len(rows_of(log)) == 1


def test_second_publisher_of_another_type_is_left_out(path: Path) -> None:
    writer = McapWriter(str(path))
    writer.start()
    for msgtype in ("std_msgs/msg/Float64", "std_msgs/msg/String"):
        channel = writer.register_channel(
            "/speed", "cdr", writer.register_schema(msgtype, "ros2msg", b"")
        )
        writer.add_message(channel, 1, b"\0\1\0\0" + msgtype.encode(), 1)
    writer.finish()
    log = open_log(path)
    assert rows_of(log) == [("/speed", 1, b"\0\1\0\0std_msgs/msg/Float64")]
    assert "a second publisher's is std_msgs/msg/String" in log.findings[0]


def test_messages_compressed_one_by_one_are_decompressed(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    written = [payload("std_msgs/msg/Float64", float64(value)) for value in (1.0, 2.0, 3.0)]
    with writer:
        connection = writer.add_connection("/speed", "std_msgs/msg/Float64", typestore=TYPES)
        for number, data in enumerate(written):
            writer.write(connection, START_NS + number, data)
    assert [row[2] for row in rows_of(open_log(tmp_path / "bag"))] == written


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "empty"),
        (lambda data: b"PK\3\4 nothing of ours", "not a robot log"),
        (lambda data: data[:8], "no topic that can be read"),
    ],
)
def test_unreadable_file_is_named(path: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    write_mcap(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LogError, match=words) as caught:
        open_log(path)
    assert str(path) in str(caught.value)


def test_unknown_topic_is_named_beside_what_there_is(path: Path) -> None:
    write_mcap(path)
    with pytest.raises(LogError, match=r"no topic '/joint'; it has /command, /joints"):
        open_log(path).blocks(["/joint"])


def test_topic_without_a_message_that_can_be_read_is_an_error(path: Path) -> None:
    rows = [row for row in messages() if row[0] == "/joints"]
    write_mcap(path, CompressionType.NONE, rows)
    log = open_log(path)
    with pytest.raises(LogError, match="no message of /command can be read"):
        list(log.blocks(["/command"]))
    assert rows_of(log, ["/joints", "/command"]) == rows
    assert "topic /command has no message" in log.findings


def test_row_times_are_the_recorders(path: Path) -> None:
    write_mcap(path)
    times = np.concatenate([block.t_ns for block in open_log(path).blocks(["/joints", "/command"])])
    assert times.dtype == np.int64
    assert np.array_equal(np.sort(times), messages()[0][1] + STEP_NS * np.arange(len(messages())))
