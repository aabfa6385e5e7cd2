"""The paths with which a contract points into a message.

    header.stamp.sec                     nested messages
    point.{x,y,z}                        several fields of one message
    ranges[3]  ranges[0:360:10]          elements by number
    position[elbow,wrist_1]              elements by name, see `NAME_FIELDS`
    transforms[child_frame_id=base].transform.translation.x
                                         the element whose field has this value

A path has one or more components, each of which is one number of the message.
Where a path has several, each bears a label that becomes the end of its name.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import NoReturn

from iql_ros.errors import ContractError

# The string sequences that give the elements of their neighbours their names
# (JointState.name, JointTrajectory.joint_names, InterfaceValue.interface_names).
NAME_FIELDS = ("name", "names", "joint_names", "interface_names")

# More than a full costmap of components is a slip of the pen, not a controller.
MAX_COMPONENTS = 65_536

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SLICE = re.compile(r"(\d*):(\d*)(?::(\d*))?")
_WHERE = re.compile(r"([A-Za-z][A-Za-z0-9_.]*)=(.*)")


@dataclass(frozen=True)
class Field:
    """The field `name` of a message."""

    name: str


@dataclass(frozen=True)
class Index:
    """The element `number` of a sequence, counted from 0."""

    number: int


@dataclass(frozen=True)
class Named:
    """The element of a sequence that the neighbouring names call `name`."""

    name: str


@dataclass(frozen=True)
class Where:
    """The first message of a sequence whose field at `key` reads `value`."""

    key: tuple[str, ...]
    value: str


Step = Field | Index | Named | Where


@dataclass(frozen=True)
class Component:
    """One number of a message: its label and the way to it from the root."""

    label: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class FieldPath:
    """A parsed path: its text and its components, in the order of the text."""

    text: str
    components: tuple[Component, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """One label per component; ("",) where there is just one."""
        return tuple(component.label for component in self.components)


def component_labels(text: str) -> tuple[str, ...]:
    """Returns the label of every component of the path `text`; ("",) for just one."""
    return parse_path(text).labels


def parse_path(text: str) -> FieldPath:
    """Parses a path.

    Raises:
        ContractError: the text is no path; names the position and the rule.
    """
    parts: list[list[Step]] = []
    position = 0
    while True:
        fields, position = _parse_fields(text, position)
        parts.append(fields)
        while text.startswith("[", position):
            elements, position = _parse_brackets(text, position)
            parts.append(elements)
        if position == len(text):
            break
        if text[position] != ".":
            _fail(text, position, "expected '.', '[' or the end")
        position += 1
    return FieldPath(text, _expand(text, parts))


def _expand(text: str, parts: list[list[Step]]) -> tuple[Component, ...]:
    """Forms every combination of the alternatives, the last part varying fastest."""
    count = 1
    for part in parts:
        count *= len(part)
    if count > MAX_COMPONENTS:
        _fail(text, 0, f"{count} components, at most {MAX_COMPONENTS} are allowed")
    choices = [part for part in parts if len(part) > 1]
    labels = ["_".join(map(_label, chosen)) for chosen in itertools.product(*choices)]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        _fail(text, 0, f"two components have the label {twice!r}, each needs its own")
    steps = itertools.product(*parts)
    return tuple(Component(label, way) for label, way in zip(labels, steps, strict=True))


def _label(step: Step) -> str:
    match step:
        case Index(number):
            return str(number)
        case Field(text) | Named(text) | Where(_, text):
            return re.sub(r"\W", "_", text, flags=re.ASCII)


def _parse_fields(text: str, position: int) -> tuple[list[Step], int]:
    """Parses `name` or `{name,name}` at `position`; returns it and where it ends."""
    if not text.startswith("{", position):
        match = _FIELD.match(text, position)
        if match is None:
            _fail(text, position, "expected a field name (a letter, then letters, digits, _)")
        return [Field(match.group())], match.end()
    items, end = _split_list(text, position, "}", "point.{x,y,z}")
    for start, item in items:
        if not _FIELD.fullmatch(item):
            _fail(text, start, f"{item!r} is not a field name")
    return [Field(item) for _, item in items], end


def _parse_brackets(text: str, position: int) -> tuple[list[Step], int]:
    """Parses `[...]` at `position` into the elements it selects, and where it ends."""
    items, end = _split_list(text, position, "]", "ranges[0:360:10]")
    return [step for start, item in items for step in _parse_element(text, start, item)], end


def _parse_element(text: str, position: int, item: str) -> list[Step]:
    if item.isascii() and item.isdigit():
        return [Index(int(item))]
    if match := _SLICE.fullmatch(item):
        first, stop, step = match.groups()
        if not stop:
            _fail(text, position, f"slice {item!r} needs a stop, as in '0:6'")
        if step is not None and not int(step or 0):
            _fail(text, position, f"slice {item!r} needs a step of 1 or more")
        numbers = range(int(first or 0), int(stop), int(step or 1))
        if not 0 < len(numbers) <= MAX_COMPONENTS:
            _fail(text, position, f"slice {item!r} selects {len(numbers)} elements")
        return [Index(number) for number in numbers]
    if match := _WHERE.fullmatch(item):
        return [Where(tuple(match[1].split(".")), _unquote(match[2]))]
    if item.startswith("-") and item[1:].isdigit():
        _fail(text, position, f"index {item} is negative, elements count from 0")
    return [Named(_unquote(item))]


def _unquote(item: str) -> str:
    """Drops quotes, by which a joint may be called '1'."""
    quoted = len(item) > 2 and item[0] == item[-1] and item[0] in "'\""
    return item[1:-1] if quoted else item


def _split_list(
    text: str, position: int, closing: str, example: str
) -> tuple[list[tuple[int, str]], int]:
    """Splits the bracket at `position` at its commas: (position, item) each, and its end."""
    end = text.find(closing, position)
    if end < 0:
        _fail(text, position, f"{text[position]!r} needs its {closing!r}, as in {example!r}")
    items = []
    start = position + 1
    for item in text[start:end].split(","):
        if not item.strip():
            _fail(text, start, f"nothing between brackets or commas, write e.g. {example!r}")
        items.append((start, item.strip()))
        start += len(item) + 1
    return items, end + 1


def _fail(text: str, position: int, rule: str) -> NoReturn:
    raise ContractError(f"path {text!r}, position {position}: {rule}")
