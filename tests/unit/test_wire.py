from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rosbags.typesys.store import Typestore

from iql_ros.errors import ContractError, LogError
from iql_ros.wire import Payloads, Reader, Writer, make_types

JOINTS = "sensor_msgs/msg/JointState"
TF = "tf2_msgs/msg/TFMessage"


@pytest.fixture(scope="module")
def types() -> Typestore:
    return make_types({})


def joints(types: Typestore, names: list[str], position: list[float], **how: Any) -> bytes:
    header = Writer(types, "std_msgs/msg/Header", []).write(np.zeros(0))
    message = types.types[JOINTS](
        types.deserialize_cdr(header, "std_msgs/msg/Header"),
        names,
        np.array(position, np.float64),
        np.array(position, np.float64) * 10,
        np.zeros(0),
    )
    return bytes(types.serialize_cdr(message, JOINTS, **how))


def tf(types: Typestore, frames: dict[str, float]) -> bytes:
    """A transform for each child frame, with its x."""
    constants: dict[str, object] = {}
    for number, child in enumerate(frames):
        constants[f"transforms[{number}].header.frame_id"] = "world"
        constants[f"transforms[{number}].child_frame_id"] = child
    paths = [f"transforms[{number}].transform.translation.x" for number in range(len(frames))]
    return Writer(types, TF, paths, constants).write(np.array([*frames.values()], np.float64))


# -- reading -------------------------------------------------------------------


def test_joints_are_found_by_name_in_whatever_order_they_come(types: Typestore) -> None:
    reader = Reader(types, JOINTS, ["position[elbow,wrist]", "velocity[wrist]"])
    assert reader.width == 3
    there = joints(types, ["wrist", "elbow"], [1, 2])
    back = joints(types, ["elbow", "wrist"], [1, 2])
    for payload, expected in ((there, [2, 1, 10]), (back, [1, 2, 20]), (there, [2, 1, 10])):
        values = reader.read(payload)
        assert values is not None
        assert values.tolist() == expected


def test_a_batch_of_mixed_orders_and_lengths_reads_row_by_row(types: Typestore) -> None:
    kinds = [
        joints(types, ["a", "b"], [1, 2]),
        joints(types, ["b", "a"], [3, 4]),  # as long, in another order
        joints(types, ["a", "b"], [5, 6], little_endian=False),
        joints(types, ["a", "b", "c"], [7, 8, 9]),
        joints(types, ["a", "c"], [7, 8]),  # no b
    ]
    expected = [[1, 2], [4, 3], [5, 6], [7, 8], [np.nan, np.nan]]
    order = np.random.default_rng(0).integers(0, len(kinds), 300)
    values, present = Reader(types, JOINTS, ["position[a,b]"]).read_many(
        Payloads.from_list([kinds[kind] for kind in order])
    )
    np.testing.assert_array_equal(values, [expected[kind] for kind in order])
    np.testing.assert_array_equal(present, order != 4)


def test_both_byte_orders_may_come_in_one_batch(types: Typestore) -> None:
    message = types.types["std_msgs/msg/Int32"](1)
    payloads = [
        bytes(types.serialize_cdr(message, "std_msgs/msg/Int32", little_endian=little))
        for little in (True, False)
    ]
    reader = Reader(types, "std_msgs/msg/Int32", ["data"])
    assert reader.read_many(Payloads.from_list(payloads * 40))[0].tolist() == [[1.0]] * 80


def test_an_absent_joint_is_skipped_and_said(types: Typestore) -> None:
    reader = Reader(types, JOINTS, ["position[elbow]"])
    payload = joints(types, ["a", "b"], [1, 2])
    assert reader.read(payload) is None
    assert reader.why_absent(payload) == "joint 'elbow' is not in name = ['a', 'b']"
    assert reader.why_absent(joints(types, ["elbow"], [1])) == ""


def test_an_index_out_of_range_is_skipped_and_said(types: Typestore) -> None:
    payload = joints(types, ["a", "b"], [1, 2])
    assert Reader(types, JOINTS, ["effort[a]"]).why_absent(payload) == (
        "joint 'a', number 0 of name, is not there, the sequence has 0 elements"
    )
    reader = Reader(types, JOINTS, ["position[1:3]"])
    assert reader.read(payload) is None
    assert reader.why_absent(payload) == "element [2] is not there, the sequence has 2 elements"


def test_a_transform_is_found_by_its_child_frame(types: Typestore) -> None:
    reader = Reader(types, TF, ["transforms[child_frame_id=base].transform.translation.x"])
    streams = [{"base": 1.0}, {"cam": 2.0, "base": 3.0}, {"base": 4.0, "cam": 5.0}, {"cam": 6.0}]
    read = [reader.read(tf(types, frames)) for frames in streams]
    assert [None if values is None else values.tolist() for values in read] == [[1], [3], [4], None]
    assert reader.why_absent(tf(types, {"cam": 6.0})) == (
        "none of the 1 elements has child_frame_id = 'base'"
    )


def test_an_element_is_found_by_an_integer_key() -> None:
    types = make_types(
        {
            "tag_msgs/msg/Tags": "tag_msgs/Tag[] tags",
            "tag_msgs/msg/Tag": "string family\nuint16 id\nfloat32 x",
        }
    )
    constants: dict[str, object] = {"tags[0].id": 7, "tags[1].id": 9, "tags[1].family": "far"}
    payload = Writer(types, "tag_msgs/msg/Tags", ["tags[0:2].x"], constants).write(np.array([1, 2]))
    for key, expected in (("7", 1), ("9", 2)):
        values = Reader(types, "tag_msgs/msg/Tags", [f"tags[id={key}].x"]).read(payload)
        assert values is not None
        assert values.tolist() == [expected]


def test_names_may_stand_in_an_enclosing_message(types: Typestore) -> None:
    trajectory = "trajectory_msgs/msg/JointTrajectory"
    writer = Writer(types, trajectory, ["points[0:2].positions[b,a]"], {"joint_names": ["a", "b"]})
    payload = writer.write(np.arange(4.0))
    plain = Reader(types, trajectory, ["points[0].positions[0:2]", "points[1].positions[0:2]"])
    values = plain.read(payload)
    assert values is not None
    assert values.tolist() == [1, 0, 3, 2]


def test_a_definition_of_the_log_wins_over_the_standard_one() -> None:
    separator = "=" * 80
    text = f"geometry_msgs/Point32 point\n{separator}\nMSG: geometry_msgs/Point32\nint8 deep\n"
    types = make_types({"geometry_msgs/msg/PointStamped": text})
    reader = Reader(types, "geometry_msgs/PointStamped", ["point.deep"])
    values = reader.read(b"\x00\x01\x00\x00\xff")
    assert values is not None
    assert values.tolist() == [-1]


def test_a_byte_of_two_is_true_alone_and_in_a_batch(types: Typestore) -> None:
    reader = Reader(types, "std_msgs/msg/Bool", ["data"])
    payload = b"\x00\x01\x00\x00\x02"
    values, _ = reader.read_many(Payloads.from_list([payload] * 50))
    assert values.tolist() == [[1.0]] * 50
    alone = reader.read(payload)
    assert alone is not None
    assert alone.tolist() == [1.0]


def test_of_a_large_payload_only_the_front_is_looked_at(types: Typestore) -> None:
    image = "sensor_msgs/msg/Image"
    front = Writer(types, image, ["header.stamp.sec"], {"data": [0]}).write(np.array([5.0]))
    big = bytearray(front[:-1] + bytes(100_000))
    big[-100_004:-100_000] = (100_000).to_bytes(4, "little")
    assert Reader(types, image, ["header.stamp.sec"])._layout(bytes(big)).reach == 8


def test_strings_of_ever_changing_length_do_not_grow_the_memory(types: Typestore) -> None:
    reader = Reader(types, JOINTS, ["position[a]"])
    payloads = [joints(types, ["x" * length, "a"], [0, length]) for length in range(300)]
    values, present = reader.read_many(Payloads.from_list(payloads))
    assert present.all()
    assert values[:, 0].tolist() == list(range(300))
    assert sum(map(len, reader._layouts.values())) <= 64


def test_a_layout_for_every_row_is_still_read(types: Typestore) -> None:
    payloads = [joints(types, [f"x{number:03}", "a"], [0, number]) for number in range(200)]
    values, present = Reader(types, JOINTS, ["position[a]"]).read_many(Payloads.from_list(payloads))
    assert present.all()
    assert values[:, 0].tolist() == list(range(200))


def test_values_leave_the_reader_read_only(types: Typestore) -> None:
    values, present = Reader(types, JOINTS, ["position[a]"]).read_many(
        Payloads.from_list([joints(types, ["a"], [1])])
    )
    assert not values.flags.writeable
    assert not present.flags.writeable


# -- damage --------------------------------------------------------------------


def test_a_truncated_payload_names_type_need_and_length(types: Typestore) -> None:
    payload = joints(types, ["a"], [1])
    reader = Reader(types, JOINTS, ["position[a]"])
    with pytest.raises(LogError, match=r"JointState: 8 bytes needed at byte \d+, payload has 40"):
        reader.read(payload[:40])
    with pytest.raises(LogError, match=r"row 30: sensor_msgs/msg/JointState: .* truncated"):
        reader.read_many(Payloads.from_list([payload] * 30 + [payload[:40]]))


def test_a_payload_of_another_type_is_refused(types: Typestore) -> None:
    reader = Reader(types, "geometry_msgs/msg/Twist", ["linear.x"])
    with pytest.raises(LogError, match="Twist: a message takes 48 bytes, payload has 56"):
        reader.read(b"\x00\x01\x00\x00" + bytes(56))


def test_a_monstrous_length_is_refused_at_once(types: Typestore) -> None:
    reader = Reader(types, JOINTS, ["position[0]"])
    for zeros, need in ((8, 2**32 - 1), (12, 4 * (2**32 - 1))):  # a string, a sequence of them
        payload = b"\x00\x01\x00\x00" + bytes(zeros) + b"\xff\xff\xff\xff" + bytes(40)
        with pytest.raises(LogError, match=f"{need} bytes needed at byte {zeros + 8}"):
            reader.read(payload)


def test_a_sequence_of_empty_messages_cannot_hang_the_reader() -> None:
    types = make_types(
        {"p/msg/Outer": "p/Nothing[] many\nfloat64 x", "p/msg/Nothing": "int8[0] no"}
    )
    payload = b"\xff\xff\xff\xff" + np.float64(3).tobytes()
    values = Reader(types, "p/msg/Outer", ["x"], "ros1").read(payload)
    assert values is not None
    assert values.tolist() == [3]


@pytest.mark.parametrize("header", [b"\x00\x03", b"\x00\x07", b"\x00\x0b"])
def test_other_encapsulations_are_refused(types: Typestore, header: bytes) -> None:
    with pytest.raises(LogError, match=f"begins with {header.hex()}, only 0000 and 0001"):
        Reader(types, "std_msgs/msg/Bool", ["data"]).read(header + bytes(3))


def test_payloads_outside_the_buffer_are_refused() -> None:
    with pytest.raises(LogError, match="payload 1 is bytes 6 to 11 of a buffer of 10 bytes"):
        Payloads(np.zeros(10, np.uint8), np.array([0, 6]), np.array([5, 5]))


def test_a_definition_that_cannot_be_parsed_is_named() -> None:
    with pytest.raises(LogError, match="definition of message type 'p/msg/A' cannot be parsed"):
        make_types({"p/msg/A": "float64 = what\n"})


def test_a_field_that_is_there_twice_is_refused() -> None:
    with pytest.raises(LogError, match="definitions of p/msg/A: Type 'p/msg/A' has conflicting"):
        make_types({"p/msg/A": "float64 x\nint8 x\n"})


@pytest.mark.parametrize(
    ("msgtype", "path", "complaint"),
    [
        ("p/msg/None", "x", "'p/msg/None' is not known: give the folder of its .msg file"),
        (JOINTS, "positions[0]", "has no field 'positions', it has: header, name, position,"),
        (JOINTS, "header.stamp.sec.x", "field 'x' cannot be: this is a number"),
        (JOINTS, "position", "ends at a sequence: select an element"),
        (JOINTS, "name[0]", "ends at a string: it must end at a number"),
        (
            JOINTS,
            "header",
            "ends at a message 'std_msgs/msg/Header' with the fields stamp, frame_id",
        ),
        (JOINTS, "header[0]", r"\[0\] needs a sequence, and this is a message"),
        ("sensor_msgs/msg/Imu", "orientation_covariance[9]", "there are at most 9 elements"),
        ("sensor_msgs/msg/LaserScan", "ranges[front]", "no message above it has a string sequence"),
        (TF, "transforms[transform=a].transform.rotation.x", "neither a string nor an integer"),
        (TF, "transforms[child=a].transform.rotation.x", "has no field 'child'"),
    ],
)
def test_a_path_that_cannot_be_is_refused(
    types: Typestore, msgtype: str, path: str, complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        Reader(types, msgtype, [path])


def test_a_wstring_is_refused() -> None:
    types = make_types({"p/msg/A": "wstring text\nfloat64 x"})
    with pytest.raises(ContractError, match="'p/msg/A' has a wstring: that is not supported"):
        Reader(types, "p/msg/A", ["x"])


def test_an_unknown_encoding_is_refused(types: Typestore) -> None:
    with pytest.raises(ContractError, match="encoding is 'json', it must be 'cdr' or 'ros1'"):
        Reader(types, JOINTS, ["position[0]"], "json")  # type: ignore[arg-type]


# -- writing -------------------------------------------------------------------


def written(types: Typestore, msgtype: str, payload: bytes) -> Any:
    return types.deserialize_cdr(payload, msgtype)


def test_names_are_filled_in_from_the_path(types: Typestore) -> None:
    writer = Writer(types, JOINTS, ["velocity[b,a]", "header.stamp.{sec,nanosec}"])
    message = written(types, JOINTS, writer.write(np.array([1, 2, 1.7e9, 999_999_999])))
    assert message.name == ["b", "a"]
    assert message.velocity.tolist() == [1, 2]
    assert message.position.tolist() == []
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 999_999_999)


def test_constants_are_in_every_message(types: Typestore) -> None:
    constants = {"header.frame_id": "base", "name": ["a", "b"], "velocity": [0, 0.5]}
    writer = Writer(types, JOINTS, ["position[b]"], constants)
    for value in (1.0, 2.0):
        message = written(types, JOINTS, writer.write(np.array([value])))
        assert message.header.frame_id == "base"
        assert message.name == ["a", "b"]
        assert message.velocity.tolist() == [0, 0.5]
        assert message.position.tolist() == [0, value]


def test_nothing_of_a_message_is_left_in_the_next(types: Typestore) -> None:
    paths, values = ["header.stamp.sec", "position[0]"], np.array([7.0, 1.5])
    constants = {"header.stamp.nanosec": 5}
    writer = Writer(types, JOINTS, paths, constants)
    first = writer.write(values)
    stamped = written(types, JOINTS, writer.write(-values, t_ns=3_000_000_004))
    assert (stamped.header.stamp.sec, stamped.header.stamp.nanosec) == (3, 4)
    assert writer.write(values) == first
    again = written(types, JOINTS, first)
    assert (again.header.stamp.sec, again.header.stamp.nanosec) == (7, 5)


def test_a_sequence_is_as_long_as_its_slice(types: Typestore) -> None:
    writer = Writer(types, "std_msgs/msg/Float64MultiArray", ["data[0:6]"])
    payload = writer.write(np.arange(6.0))
    assert written(types, "std_msgs/msg/Float64MultiArray", payload).data.tolist() == [*range(6)]


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("Int8", [2.5, -200, 300, np.nan], [2, -128, 127, 0]),
        ("UInt16", [-3, 65535.4, np.inf], [0, 65535, 65535]),
        ("Int64", [2.0**70, -(2.0**70), -5], [2**63 - 1024, -(2**63), -5]),
        ("Float32", [1e300, 0.5], [np.finfo(np.float32).max, 0.5]),
        ("Float64", [np.inf, 1e300], [np.inf, 1e300]),
        ("Bool", [0.49, 0.5, -1, np.nan], [False, True, False, False]),
    ],
)
def test_a_value_becomes_the_nearest_that_its_type_holds(
    types: Typestore, kind: str, given: list[float], expected: list[float]
) -> None:
    writer = Writer(types, f"std_msgs/msg/{kind}", ["data"])
    payloads = [writer.write(np.array([value])) for value in given]
    messages = [written(types, f"std_msgs/msg/{kind}", payload) for payload in payloads]
    assert [message.data for message in messages] == expected


@pytest.mark.parametrize(
    ("paths", "constants", "complaint"),
    [
        (["position[c]"], {"name": ["a"]}, r"joint 'c' is not in name = \['a'\]"),
        (["position[0]", "position[a]"], {}, "are the same number"),
        (["position[9999999]"], {}, "at most 65536 are allowed"),
        ([], {"name": "a"}, "constant 'name' is 'a', it must be a list"),
        ([], {"header.frame_id": 3}, "constant 'header.frame_id' is 3, it must be a string"),
        ([], {"header": "now"}, "give the fields of that message one by one"),
        ([], {"header.stamp.nanosec": -1}, "is -1, which uint32 cannot hold"),
        ([], {"header.stamp.sec": 0.5}, "is 0.5, which int32 cannot hold"),
        ([], {"header.stamp.{sec,nanosec}": 0}, "has several components, here it must have one"),
    ],
)
def test_what_cannot_be_written_is_refused(
    types: Typestore, paths: list[str], constants: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        Writer(types, JOINTS, paths, constants)


def test_selection_by_value_cannot_be_written(types: Typestore) -> None:
    with pytest.raises(ContractError, match="selects by value, which cannot be written"):
        Writer(types, TF, ["transforms[child_frame_id=a].transform.translation.x"])


def test_the_number_of_values_must_be_that_of_the_components(types: Typestore) -> None:
    writer = Writer(types, "std_msgs/msg/Float64MultiArray", ["data[0:6]"])
    with pytest.raises(ContractError, match=r"values have shape \(5,\), the paths need \(6,\)"):
        writer.write(np.zeros(5))
