"""What numbers a payload holds, and which payloads of a topic are laid out alike.

The converter reads the paths that a contract names; here nobody has named one yet, so a walk
over one payload of each layout lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iql_ros.contracts.paths import NAME_FIELDS, Named, parse_path
from iql_ros.errors import ContractError, LogError
from iql_ros.payloads.cursor import Cursor
from iql_ros.payloads.layout import Buffer, Layout
from iql_ros.payloads.messages import Encoding, List, Number, Struct, Text
from iql_ros.payloads.targets import find_targets
from iql_ros.payloads.walk import walk
from iql_ros.wire import Payloads

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

MOST_LAYOUTS = 64
MOST_ELEMENTS = 1024
"""Of a longer sequence every n-th element is looked at."""

_NO_NUMBERS = {
    "std_msgs/msg/Header",
    "builtin_interfaces/msg/Time",
    "builtin_interfaces/msg/Duration",
}
_SLAB_BYTES = 1 << 20


@dataclass(frozen=True)
class Numbers:
    """Numbers of a message that belong together: x, y, z of a point, the elements of a sequence.

    Attributes:
        where: the way to the message or sequence that holds them, "" at the root.
        owner: type of the message that holds them.
        parts: field names; or the elements, as numbers or as the names beside them.
        is_sequence: whether they are elements of a sequence.
    """

    where: str
    owner: str
    parts: tuple[str, ...]
    is_sequence: bool

    def path(self, chosen: Sequence[int] | None = None) -> str:
        """The contract's path of the parts numbered `chosen`; of all without."""
        parts = [self.parts[i] for i in range(len(self.parts)) if chosen is None or i in chosen]
        if self.is_sequence:
            return f"{self.where}[{_elements(parts)}]"
        last = parts[0] if len(parts) == 1 else f"{{{','.join(parts)}}}"
        return f"{self.where}.{last}" if self.where else last

    @property
    def is_quaternion(self) -> bool:
        """Whether these are x, y, z, w of a rotation."""
        return self.parts == ("x", "y", "z", "w") and self.owner.endswith("Quaternion")


@dataclass(frozen=True)
class Shape:
    """The numbers of a payload, and the names that it gives to elements of sequences."""

    numbers: tuple[Numbers, ...]
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many numbers, all parts counted."""
        return sum(len(numbers.parts) for numbers in self.numbers)

    def columns(self, wanted: Numbers) -> slice:
        """Where `wanted`, one of `numbers`, stands in a row of all of them."""
        before = self.numbers[: self.numbers.index(wanted)]
        start = sum(len(numbers.parts) for numbers in before)
        return slice(start, start + len(wanted.parts))


def shape_of(root: Struct, encoding: Encoding, payload: Buffer) -> Shape:
    """Lists the numbers of one payload; header, times and covariances are none.

    Raises:
        LogError: the payload is truncated, or is no message of this type.
    """
    found: list[Numbers] = []
    names: list[str] = []
    _visit(Cursor(root, encoding, payload), root, "", names, found)
    return Shape(tuple(found), tuple(names))


def _visit(
    cursor: Cursor, message: Struct, prefix: str, names: list[str], found: list[Numbers]
) -> None:
    """Adds the numbers of the message here, and moves behind it."""
    letters: list[str] = []
    letters_at = 0
    for name, node in message.fields:
        where = f"{prefix}.{name}" if prefix else name
        if isinstance(node, Number):
            cursor.skip(node)
            if len(name) == 1:
                letters_at = letters_at if letters else len(found)
                letters.append(name)
            else:
                found.append(Numbers(prefix, message.name, (name,), False))
        elif isinstance(node, Struct) and node.name not in _NO_NUMBERS:
            _visit(cursor, node, where, names, found)
        elif isinstance(node, List) and "covariance" not in name:
            _visit_list(cursor, node, message.name, where, names, found)
        else:
            cursor.skip(node)
    if letters:
        found.insert(letters_at, Numbers(prefix, message.name, tuple(letters), False))


def _visit_list(
    cursor: Cursor, node: List, owner: str, where: str, names: list[str], found: list[Numbers]
) -> None:
    count = cursor.length(node)
    if isinstance(node.element, Text) and where.rpartition(".")[2] in NAME_FIELDS:
        names[:] = [cursor.text(node.element) for _ in range(count)]
        return
    if isinstance(node.element, Number) and count:
        found.append(Numbers(where, owner, _parts(where, count, names), True))
    if isinstance(node.element, Struct) and count and where.endswith("points"):
        # The next point of a trajectory is where it wants the robot to be first.
        _visit(cursor, node.element, f"{where}[0]", names, found)
        count -= 1
    cursor.skip_elements(node.element, count)


def _parts(where: str, count: int, names: Sequence[str]) -> tuple[str, ...]:
    """The elements by name, where a path can say all the names, else by number."""
    if len(names) == count:
        parts = [_quoted(name) for name in names]
        try:
            chosen = parse_path(f"{where}[{','.join(parts)}]").components
            if [component.steps[-1] for component in chosen] == [Named(name) for name in names]:
                return tuple(parts)
        except ContractError:
            pass  # an empty name, a comma in one, two that read alike
    return tuple(str(i) for i in range(0, count, -(-count // MOST_ELEMENTS)))


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w/.-]*", name, re.ASCII) else f"'{name}'"


def _elements(parts: Sequence[str]) -> str:
    """Elements as a slice where they follow each other evenly, else one by one."""
    if len(parts) > 2 and all(part.isdigit() for part in parts):
        numbers = [int(part) for part in parts]
        step = numbers[1] - numbers[0]
        if numbers == list(range(numbers[0], numbers[-1] + 1, step)):
            return f"{numbers[0]}:{numbers[-1] + 1}" + (f":{step}" if step > 1 else "")
    return ",".join(parts)


@dataclass
class Kind:
    """Payloads of one layout, and how many there were."""

    shape: Shape
    layout: Layout
    count: int = 0


@dataclass
class Census:
    """Sorts the payloads of one topic by their layout, and reads all their numbers.

    Attributes:
        kinds: the layouts met, at most `MOST_LAYOUTS`.
        unread: payloads of yet other layouts; their numbers were not looked at.
        damaged: payloads that are no message of this type.
    """

    root: Struct
    encoding: Encoding
    kinds: list[Kind] = field(default_factory=list)
    unread: int = 0
    damaged: int = 0

    def sort(self, payloads: Payloads) -> Iterator[tuple[Shape, Rows, Array]]:
        """The rows of each layout, ascending, and their numbers, shape (rows, width)."""
        by_length = np.argsort(payloads.lengths, kind="stable")
        borders = np.flatnonzero(np.diff(payloads.lengths[by_length])) + 1
        for rows in np.split(by_length, borders) if len(by_length) else []:
            size = int(payloads.lengths[rows[0]])
            for kind in [kind for kind in self.kinds if kind.layout.size == size]:
                fitting, values, rows = _matching(kind, payloads, rows)
                yield kind.shape, fitting, values
            while len(rows):
                if len(self.kinds) == MOST_LAYOUTS:
                    self.unread += len(rows)
                    break
                try:
                    kind = self._new(payloads[int(rows[0])])
                except LogError:
                    self.damaged += 1
                    rows = rows[1:]
                    continue
                fitting, values, rows = _matching(kind, payloads, rows)
                yield kind.shape, fitting, values

    def _new(self, payload: Buffer) -> Kind:
        shape = shape_of(self.root, self.encoding, payload)
        paths = [numbers.path() for numbers in shape.numbers]
        layout = walk(self.root, find_targets(self.root, paths), self.encoding, payload)
        self.kinds.append(Kind(shape, layout))
        return self.kinds[-1]


def _matching(kind: Kind, payloads: Payloads, rows: Rows) -> tuple[Rows, Array, Rows]:
    """Those of `rows` that have the layout, their numbers, and the other rows."""
    if not kind.layout.reach or not kind.layout.slots:
        kind.count += len(rows)
        return rows, np.full((len(rows), kind.shape.width), np.nan), rows[:0]
    fitting, values, others = [rows[:0]], [np.zeros((0, kind.shape.width))], [rows[:0]]
    step = max(1, _SLAB_BYTES // kind.layout.reach)
    for first in range(0, len(rows), step):
        slab = rows[first : first + step]
        gathered = kind.layout.gather(payloads.data, payloads.starts[slab])
        fits = kind.layout.fits_rows(gathered)
        fitting.append(slab[fits])
        others.append(slab[~fits])
        values.append(kind.layout.read_rows(gathered[fits]))
    kind.count += sum(map(len, fitting))
    return np.concatenate(fitting), np.concatenate(values), np.concatenate(others)
