"""The wire against rosbags: any definition, any content, and every log in ../shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Nodetype
from rosbags.typesys.base import normalize_fieldname
from rosbags.typesys.store import Typestore

from iql_ros.errors import LogError
from iql_ros.wire import Payloads, Reader, Writer, make_types

REAL_LOGS = Path(__file__).resolve().parents[3] / "shared" / "real_logs"

ROOT = "made_msgs/msg/Root"
NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "byte": st.integers(-128, 127),
    "char": st.integers(0, 255),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    **{f"uint{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"int{b}": st.integers(-(2 ** (b - 1)), 2 ** (b - 1) - 1) for b in (8, 16, 32, 64)},
}
TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=5)
SUFFIXES = st.sampled_from(["", "", "", "[]", "[2]", "[<=3]"])


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, str]:
    """Definitions of a message, and of the messages in it, and in those."""
    texts: dict[str, str] = {}
    for name in ("Leaf", "Branch", "Root"):
        kinds = [*NUMBERS, "string", "string<=5", *texts]
        lines = draw(st.lists(st.tuples(st.sampled_from(kinds), SUFFIXES), min_size=1, max_size=5))
        texts[name] = "\n".join(f"{kind}{end} f{i}" for i, (kind, end) in enumerate(lines))
    return {f"made_msgs/msg/{name}": text for name, text in texts.items()}


def draw_message(types: Typestore, name: str, draw: Callable[[Any], Any]) -> Any:
    """Draws a message object of any content."""

    def one(description: Any) -> Any:
        kind, detail = description
        if kind == Nodetype.NAME:
            return draw_message(types, detail, draw)
        if kind == Nodetype.BASE:
            return draw(TEXTS if detail[0] == "string" else NUMBERS[detail[0]])
        element, size = detail
        count = size if kind == Nodetype.ARRAY else draw(st.integers(0, size or 3))
        elements = [one(element) for _ in range(count)]
        if element[0] == Nodetype.NAME or element[1][0] == "string":
            return elements
        dtype = {"bool": "bool_", "byte": "int8", "char": "uint8"}.get(element[1][0], element[1][0])
        return np.array(elements, dtype)

    return types.types[name](*(one(description) for _, description in types.fielddefs[name][1]))


def leaves(types: Typestore, name: str, message: Any, most: int = 3) -> Iterator[tuple[str, float]]:
    """Every number in a message object (of long sequences the first few): path, value."""

    def walk(path: str, description: Any, value: Any) -> Iterator[tuple[str, float]]:
        kind, detail = description
        if kind == Nodetype.NAME:
            yield from ((f"{path}.{rest}", number) for rest, number in leaves(types, detail, value))
        elif kind == Nodetype.BASE:
            if detail[0] != "string":
                yield path, float(value)
        else:
            for number in [*range(len(value))][:most] + [*range(len(value))][most:][-1:]:
                yield from walk(f"{path}[{number}]", detail[0], value[number])

    for field, description in types.fielddefs[name][1]:
        yield from walk(field, description, getattr(message, normalize_fieldname(field)))


SERIALISERS: dict[str, tuple[str, Callable[[Typestore, Any], bytes]]] = {
    "little endian": ("cdr", lambda t, m: bytes(t.serialize_cdr(m, ROOT, little_endian=True))),
    "big endian": ("cdr", lambda t, m: bytes(t.serialize_cdr(m, ROOT, little_endian=False))),
    "ROS 1": ("ros1", lambda t, m: bytes(t.serialize_ros1(m, ROOT))),
}


@pytest.mark.parametrize("form", SERIALISERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_number_reads_as_rosbags_reads_it(form: str, data: st.DataObject) -> None:
    types = make_types(data.draw(definitions()))
    encoding, serialise = SERIALISERS[form]
    message = draw_message(types, ROOT, data.draw)
    payload = serialise(types, message)
    expected = dict(leaves(types, ROOT, message))
    if not expected:
        return
    paths = data.draw(st.permutations(sorted(expected)))
    values = Reader(types, ROOT, paths, encoding).read(payload)  # type: ignore[arg-type]
    assert values is not None
    assert values.tobytes() == np.array([expected[path] for path in paths]).tobytes()


@pytest.mark.parametrize("form", SERIALISERS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_batch_reads_as_its_payloads_one_by_one(form: str, data: st.DataObject) -> None:
    types = make_types(data.draw(definitions()))
    encoding, serialise = SERIALISERS[form]
    messages = [draw_message(types, ROOT, data.draw) for _ in range(3)]
    different = [serialise(types, message) for message in messages]
    found = sorted({path for message in messages for path, _ in leaves(types, ROOT, message)})
    if not found:
        return
    paths = data.draw(st.lists(st.sampled_from(found), min_size=1, unique=True))
    payloads = data.draw(st.permutations(different * 20))
    values, present = Reader(types, ROOT, paths, encoding).read_many(  # type: ignore[arg-type]
        Payloads.from_list(payloads)
    )
    alone = Reader(types, ROOT, paths, encoding)  # type: ignore[arg-type]
    for row, payload in enumerate(payloads):
        single = alone.read(payload)
        assert present[row] == (single is not None)
        if single is None:
            assert np.isnan(values[row]).all()
            assert alone.why_absent(payload)
        else:
            assert values[row].tobytes() == single.tobytes()


@pytest.mark.parametrize("form", SERIALISERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damage_gives_values_or_a_log_error(form: str, data: st.DataObject) -> None:
    types = make_types(data.draw(definitions()))
    encoding, serialise = SERIALISERS[form]
    message = draw_message(types, ROOT, data.draw)
    paths = [path for path, _ in leaves(types, ROOT, message)]
    damaged = bytearray(serialise(types, message))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    reader = Reader(types, ROOT, paths, encoding)  # type: ignore[arg-type]
    try:
        single = reader.read(bytes(damaged))
    except LogError:
        with pytest.raises(LogError, match="row 0: made_msgs/msg/Root"):
            reader.read_many(Payloads.from_list([damaged] * 30))
    else:
        values, present = reader.read_many(Payloads.from_list([damaged] * 30))
        assert present.all() == (single is not None)
        if single is not None:
            assert values.tobytes() == single.tobytes() * 30


@pytest.mark.parametrize("encoding", ["cdr", "ros1"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reader_and_rosbags_read_what_writer_wrote(encoding: str, data: st.DataObject) -> None:
    types = make_types(data.draw(definitions()))
    message = draw_message(types, ROOT, data.draw)
    expected = {path: value for path, value in leaves(types, ROOT, message) if abs(value) < 2**53}
    paths = data.draw(st.permutations(sorted(expected)))
    values = np.array([expected[path] for path in paths])
    payload = Writer(types, ROOT, paths, encoding=encoding).write(values)  # type: ignore[arg-type]
    read = Reader(types, ROOT, paths, encoding).read(payload)  # type: ignore[arg-type]
    assert read is not None
    assert read.tobytes() == values.tobytes()
    deserialise = types.deserialize_cdr if encoding == "cdr" else types.deserialize_ros1
    theirs = dict(leaves(types, ROOT, deserialise(payload, ROOT), most=10))
    assert [theirs[path] for path in paths] == values.tolist()


# A log that carries no definitions is read by the standard ones and this.
TURTLE_POSE = "\n".join(
    f"float32 {name}" for name in ("x", "y", "theta", "linear_velocity", "angular_velocity")
)


def real_logs() -> list[Path]:
    """Every log that rosbags opens and that holds numbers: a ROS 1 file or a ROS 2 folder."""
    others = {"truncated_ros1", "unindexed_ros1", "unsorted_chunks"}
    folders = [folder for folder in sorted(REAL_LOGS.glob("*")) if folder.is_dir()]
    return [next(folder.glob("*.bag"), folder) for folder in folders if folder.name not in others]


@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason=f"no real logs: {REAL_LOGS} is not there")
@pytest.mark.parametrize("log", real_logs(), ids=lambda log: log.parent.name + "/" + log.name)
def test_real_logs_read_as_rosbags_reads_them(log: Path) -> None:
    ros1 = log.suffix == ".bag"
    standard = make_types({"turtlesim/msg/Pose": TURTLE_POSE}, ros1=ros1)
    compared = 0
    with AnyReader([log], default_typestore=standard) as bag:
        for connection in bag.connections:
            name = connection.msgtype
            definition = connection.msgdef.data or TURTLE_POSE
            known = connection.msgdef.data or name == "turtlesim/msg/Pose"
            types = make_types({name: definition} if known else {}, ros1=ros1)
            payloads = [raw for _, _, raw in bag.messages([connection])]
            payloads = payloads[:: max(1, len(payloads) // 4)]
            for payload in payloads:
                expected = dict(leaves(bag.typestore, name, bag.deserialize(payload, name)))
                reader = Reader(types, name, list(expected), "ros1" if ros1 else "cdr")
                values, present = reader.read_many(Payloads.from_list(payloads))
                row = payloads.index(payload)
                assert present[row]
                assert values[row].tobytes() == np.array([*expected.values()]).tobytes(), name
                compared += len(expected)
    assert compared
