"""Message types: from their definitions to a tree that a walk over bytes follows.

The tree knows what CDR and ROS 1 serialisation say about sizes: ROS 2 aligns a
number to its own size, counted from the end of the 4-byte encapsulation header
(XCDR1, OMG CDR 1.2 section 7.4); ROS 1 aligns nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal, get_args

from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import FieldDesc, Typesdict
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from iql_ros.errors import ContractError, LogError

Encoding = Literal["cdr", "ros1"]

# Codes of the modules struct and numpy alike. rosbags, too, reads byte as signed.
_CODES = {
    "bool": "?",
    "byte": "b",
    "char": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}

_SEPARATOR = "=" * 80 + "\n"


@dataclass(frozen=True)
class Number:
    """A bool, integer or float; `code` is its struct code.

    Of this and the next classes: `align` is the boundary at which the number,
    or the length before the content, begins.
    """

    code: str
    align: int

    @cached_property
    def minimum(self) -> int:
        """The fewest bytes that a value takes."""
        return struct.calcsize(f"<{self.code}")

    @cached_property
    def advance(self) -> tuple[int, ...] | None:
        """The bytes to the end of the value from an offset of remainder 0 to 7 by 8.

        None where that depends on the content.
        """
        return tuple(-offset % self.align + self.minimum for offset in range(8))


@dataclass(frozen=True)
class Text:
    """A string: its length in bytes as uint32, then the bytes (CDR: and a final NUL)."""

    align: int
    minimum: int = 4
    advance: tuple[int, ...] | None = None


@dataclass(frozen=True)
class List:
    """An array of `count` elements; or, where that is None, a uint32 length and so many."""

    element: Node
    align: int
    count: int | None
    bound: int | None = None

    @cached_property
    def minimum(self) -> int:
        """The fewest bytes that a value takes."""
        return 4 if self.count is None else self.count * self.element.minimum

    @cached_property
    def advance(self) -> tuple[int, ...] | None:
        """As `Number.advance`."""
        if self.count is None or self.element.advance is None:
            return None
        return tuple(span(self.element.advance, offset, self.count) for offset in range(8))


@dataclass(frozen=True)
class Struct:
    """A message: its fields in the order of the wire."""

    name: str
    fields: tuple[tuple[str, Node], ...]

    @cached_property
    def minimum(self) -> int:
        """The fewest bytes that a value takes."""
        return sum(node.minimum for _, node in self.fields)

    @cached_property
    def advance(self) -> tuple[int, ...] | None:
        """As `Number.advance`."""
        if any(node.advance is None for _, node in self.fields):
            return None
        ends = list(range(8))
        for _, node in self.fields:
            ends = [end + (node.advance or ())[end % 8] for end in ends]
        return tuple(end - offset for offset, end in enumerate(ends))

    def field(self, name: str) -> Node | None:
        """Returns the field `name`, or None if there is none."""
        return dict(self.fields).get(name)


Node = Number | Text | List | Struct


def span(advance: tuple[int, ...], offset: int, count: int) -> int:
    """Returns the bytes that `count` elements in a row take from `offset` on.

    All but the first take equally many: wherever the first begins, its widest
    number puts its end, and so each later begin, on the same remainder.
    """
    if count == 0:
        return 0
    first = advance[offset % 8]
    return first + (count - 1) * advance[(offset + first) % 8]


def make_types(definitions: Mapping[str, str], *, ros1: bool = False) -> Typestore:
    """Returns the standard message types, overruled and extended by `definitions`.

    Where two definitions speak of the same type, the later one holds.

    Args:
        definitions: Message type to definition text: a .msg file, or the
            concatenated form that logs embed (ros1msg, ros2msg, ros2idl).
        ros1: Whether the standard types are those of ROS 1 Noetic.

    Raises:
        LogError: a definition cannot be parsed, or has a field twice.
    """
    return _make_types(tuple(definitions.items()), ros1)


@lru_cache(maxsize=32)  # the same topics come in log after log: 5 ms each
def _make_types(definitions: tuple[tuple[str, str], ...], ros1: bool) -> Typestore:
    own: Typesdict = {}
    for msgtype, text in definitions:
        own.update(_parse(msgtype, text.replace("\r\n", "\n")))
    types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    for name in own.keys() & types.fielddefs.keys():
        del types.fielddefs[name], types.types[name]
    try:
        types.register(own)
    except TypesysError as error:
        raise LogError(f"definitions of {', '.join(dict(definitions))}: {error}") from error
    return types


def _parse(msgtype: str, text: str) -> Typesdict:
    try:
        if not text.startswith(f"{_SEPARATOR}IDL: "):
            return get_types_from_msg(text, msgtype)
        parsed: Typesdict = {}
        for section in text.split(_SEPARATOR)[1:]:
            parsed.update(get_types_from_idl(section.partition("\n")[2]))
        return parsed
    except TypesysError as error:
        lines = str(error).splitlines() or [""]
        raise LogError(
            f"definition of message type {msgtype!r} cannot be parsed: {lines[0][:200]} ... "
            f"{lines[-1][-100:]}; it must be in .msg or .idl form"
        ) from error


def message_tree(types: Typestore, msgtype: str, encoding: Encoding) -> Struct:
    """Returns the tree of `msgtype` as `encoding` lays it out.

    Raises:
        ContractError: the encoding, the type or one that it contains is not known.
    """
    if encoding not in get_args(Encoding):
        raise ContractError(f"encoding is {encoding!r}, it must be 'cdr' or 'ros1'")
    return _Trees(types, encoding == "cdr").message(normalize_msgtype(msgtype), ())


@dataclass(frozen=True)
class _Trees:
    """Builds the tree of every type once, however many messages contain it."""

    types: Typestore
    aligned: bool
    built: dict[str, Struct] = field(default_factory=dict)

    def message(self, msgtype: str, within: tuple[str, ...]) -> Struct:
        if msgtype in self.built:
            return self.built[msgtype]
        if msgtype in within:
            raise ContractError(f"message type {msgtype!r} contains itself: not a ROS message")
        if msgtype.endswith("/wstring"):
            raise ContractError(f"message type {within[-1]!r} has a wstring: that is not supported")
        if msgtype not in self.types.fielddefs:
            where = f", which {within[-1]!r} contains," if within else ""
            raise ContractError(
                f"message type {msgtype!r}{where} is not known: "
                "give the folder of its .msg file in message_folders"
            )
        fields = tuple(
            (name, self.node(description, (*within, msgtype)))
            for name, description in self.types.fielddefs[msgtype][1]
        )
        if not fields and self.aligned:
            # ROS 2 sends an empty message as one byte, C having no empty struct.
            fields = (("structure_needs_at_least_one_member", Number("B", 1)),)
        return self.built.setdefault(msgtype, Struct(msgtype, fields))

    def node(self, description: FieldDesc, within: tuple[str, ...]) -> Node:
        prefix = 4 if self.aligned else 1
        if description[0] == Nodetype.NAME:
            return self.message(description[1], within)
        if description[0] == Nodetype.BASE:
            kind = description[1][0]
            if kind == "string":
                return Text(prefix)
            if kind not in _CODES:
                raise ContractError(
                    f"message type {within[-1]!r} has a {kind}: that is not supported"
                )
            code = _CODES[kind]
            return Number(code, struct.calcsize(f"<{code}") if self.aligned else 1)
        element, size = description[1]
        if description[0] == Nodetype.ARRAY:
            return List(self.node(element, within), prefix, size)
        return List(self.node(element, within), prefix, None, size or None)
