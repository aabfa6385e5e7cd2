"""Field values to payload bytes: the message that a node publishes.

The message is serialised once, with zeros for the values, into memory that the writer keeps;
the same walk that reads a payload finds where they belong, and `write` only puts them there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.contracts.paths import MAX_COMPONENTS, Field, Index
from iql_ros.errors import ContractError
from iql_ros.payloads.cursor import HEADER_SIZE
from iql_ros.payloads.messages import Encoding, List, Node, Number, Struct, Text, message_tree
from iql_ros.payloads.targets import Labelled, TargetStep, find_node, find_targets
from iql_ros.payloads.walk import walk

_STAMP = struct.Struct("<iI")  # builtin_interfaces/Time
_SECONDS = 2**31  # those of a stamp, an int32, lie in [-_SECONDS, _SECONDS)

# A message while it is put together: dict by field, list of elements, str, number.
_Value = Any


class Writer:
    """Writes messages of one type: values at `paths`, `constants`, else zero and empty.

    A sequence gets as many elements as paths and constants speak of, and the names
    that select elements are filled in, unless a constant gives them. A value becomes
    the nearest that its type holds: integers round half to even, every type saturates
    at the ends of its range, a bool is true from 0.5 on, NaN is 0 where it cannot be.
    Not for two threads at once.

    Attributes:
        width: How many values `write` takes, A: the components of all paths.
    """

    def __init__(
        self,
        types: Typestore,
        msgtype: str,
        paths: Sequence[str],
        constants: Mapping[str, object] | None = None,
        encoding: Encoding = "cdr",
    ) -> None:
        """Serialises the message once.

        Args:
            paths: of the values, in their order.
            constants: values of other fields, by path.

        Raises:
            ContractError: the type is not known, a path is none of a number in it, two
                paths name the same number, or a constant does not fit its field.
        """
        root = message_tree(types, msgtype, encoding)
        targets = find_targets(root, paths)
        draft = _Draft(root)
        for path, constant in (constants or {}).items():
            steps, node = find_node(root, path)
            draft.put(steps, _fitting(node, constant, path), final=True)
        for target in targets:
            draft.put(target.steps, 0)
        template = _serialise(root, draft.message, encoding)
        self.width = len(targets)
        self._shape = (self.width,)
        self._stamp_start = _stamp_start(root, encoding, template)

        layout = walk(root, targets, encoding, template)
        if len(set(layout.slots)) < len(targets):
            raise ContractError(f"two of the paths {list(paths)} to write are the same number")
        starts = [start for start, _ in layout.slots]
        self._order = None if starts == sorted(starts) else np.argsort(starts)
        codes = {code for _, code in layout.slots}
        self._bounds = None
        if codes != {"d"}:
            limits = [_limits(code) for _, code in layout.slots]
            self._bounds = np.array(limits).reshape(-1, 2).T
        self._template = template
        self._payload = _aligned(template, HEADER_SIZE if encoding == "cdr" else 0)
        self._floats, self._others = [], []
        for run in layout.runs:
            part = slice(run.first, run.first + run.count)
            if run.code in "fd":
                slots = np.ndarray((run.count,), f"<{run.code}", self._payload, run.start)
                self._floats.append((slots, part))
            else:
                pack_into = struct.Struct(f"<{run.count}{run.code}").pack_into
                convert = _truth if run.code == "?" else _nearest
                self._others.append((convert, pack_into, run.start, part))

    @property
    def is_stamped(self) -> bool:
        """Whether the message has a header, and so a time."""
        return self._stamp_start is not None

    def write(self, values: NDArray[np.float64], t_ns: int | None = None) -> bytes:
        """Returns the payload of the message that holds `values`, shape (A,).

        Args:
            t_ns: the time of its header, if it has one; None leaves it as the message was made.
        """
        if values.shape != self._shape:
            raise ContractError(f"values have shape {values.shape}, the paths need {self._shape}")
        if self._bounds is not None:
            values = np.minimum(np.maximum(values, self._bounds[0]), self._bounds[1])
        if self._order is not None:
            values = values[self._order]
        payload = self._payload
        if t_ns is None:  # an earlier one's may stand there
            payload[:] = self._template
        for slots, part in self._floats:
            slots[:] = values[part]
        for convert, pack_into, start, part in self._others:
            pack_into(payload, start, *map(convert, values[part].tolist()))
        if t_ns is not None and self._stamp_start is not None:
            seconds, ns = divmod(t_ns, 1_000_000_000)
            if not -_SECONDS <= seconds < _SECONDS:
                seconds = min(max(seconds, -_SECONDS), _SECONDS - 1)
            _STAMP.pack_into(payload, self._stamp_start, seconds, ns)
        return payload.tobytes()


def _aligned(template: bytes, origin: int) -> memoryview:
    """A copy whose numbers lie at multiples of their size, as they do from byte `origin` on."""
    padding = -origin % 8
    memory = memoryview(bytearray(padding + len(template)))[padding:]
    memory[:] = template
    return memory


def _stamp_start(root: Struct, encoding: Encoding, template: bytes) -> int | None:
    """The byte at which the time of the header begins; None if there is no header."""
    header = root.field("header")
    if not (isinstance(header, Struct) and header.name == "std_msgs/msg/Header"):
        return None
    layout = walk(root, find_targets(root, ["header.stamp.sec"]), encoding, template)
    return layout.slots[0][0]


def _nearest(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def _truth(value: float) -> bool:
    return value >= 0.5


def _limits(code: str) -> tuple[float, float]:
    """Returns the least and the greatest float64 that a number of `code` holds."""
    if code in "?d":
        return -np.inf, np.inf
    if code == "f":
        return float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    limits = np.iinfo(np.dtype(code))
    high = float(limits.max)
    # float(2**63 - 1) is 2**63, one too many.
    return float(limits.min), high if int(high) <= limits.max else float(np.nextafter(high, 0))


class _Draft:
    """A message of zeros in which fields are set, and sequences grow as needed."""

    def __init__(self, root: Struct) -> None:
        self.root = root
        self.message = _zero(root)
        self._final: list[_Value] = []

    def put(self, steps: Sequence[TargetStep], value: _Value, *, final: bool = False) -> None:
        """Sets what lies at `steps`; a `final` list of names does not grow any more."""
        node: Node = self.root
        place = self.message
        above = []
        for step in steps[:-1]:
            above.append(place)
            key, node = self._descend(node, place, above, step)
            place = place[key]
        above.append(place)
        key, _ = self._descend(node, place, above, steps[-1])
        place[key] = value
        if final:
            self._final.append(value)

    def _descend(
        self, node: Node, place: _Value, above: list[_Value], step: TargetStep
    ) -> tuple[str | int, Node]:
        """Returns the key and the type of the part of `place` that `step` selects."""
        match node, step:
            case Struct(), Field(name):
                return name, dict(node.fields)[name]
            case List(), Index(number):
                return _grown(node, place, number), node.element
            case List(), Labelled(name, depth, field):
                names = above[depth][field]
                if name not in names:
                    if any(names is given for given in self._final):
                        raise ContractError(f"joint {name!r} is not in {field} = {names}")
                    names.append(name)
                return _grown(node, place, names.index(name)), node.element
        raise ContractError(f"{step} selects by value, which cannot be written: use a number")


def _grown(node: List, elements: list[_Value], number: int) -> int:
    """Lets `elements` have element `number`; returns `number`."""
    most = MAX_COMPONENTS if node.bound is None else node.bound
    most = most if node.count is None else node.count
    if number >= most:
        raise ContractError(f"element [{number}] cannot be written, at most {most} are allowed")
    while len(elements) <= number:
        elements.append(_zero(node.element))
    return number


def _zero(node: Node) -> _Value:
    match node:
        case Number():
            return 0
        case Text():
            return ""
        case List():
            return [_zero(node.element) for _ in range(node.count or 0)]
        case Struct():
            return {name: _zero(child) for name, child in node.fields}


def _fitting(node: Node, value: object, path: str) -> _Value:
    """Returns the constant `value` as a value of `node`."""
    match node:
        case Text() if isinstance(value, str):
            return value
        case Number() if isinstance(value, bool | int | float):
            try:
                whole = node.code not in "fd" and value == int(value)
                number = int(value) if whole else value
                struct.pack(f"<{node.code}", number)
            except (struct.error, OverflowError, ValueError):
                kind = np.dtype(node.code).name
                raise ContractError(
                    f"constant {path!r} is {value!r}, which {kind} cannot hold"
                ) from None
            return number
        case List() if isinstance(value, list | tuple):
            fixed, most = node.count, node.bound
            if (fixed is not None and len(value) != fixed) or (most and len(value) > most):
                raise ContractError(
                    f"constant {path!r} has {len(value)} elements, the message takes "
                    f"{fixed if fixed is not None else f'at most {most}'}"
                )
            return [_fitting(node.element, item, path) for item in value]
    needed = {Text: "a string", Number: "a number", List: "a list"}.get(type(node))
    raise ContractError(
        f"constant {path!r} is {value!r}, "
        + (f"it must be {needed}" if needed else "give the fields of that message one by one")
    )


def _serialise(root: Struct, message: _Value, encoding: Encoding) -> bytes:
    header = b"\x00\x01\x00\x00" if encoding == "cdr" else b""
    body = bytearray()

    def add(node: Node, value: _Value) -> None:
        match node:
            case Number():
                body.extend(bytes(-len(body) % node.align))
                body.extend(struct.pack(f"<{node.code}", value))
            case Text():
                content = value.encode() + (b"\x00" if encoding == "cdr" else b"")
                add(Number("I", node.align), len(content))
                body.extend(content)
            case List():
                if node.count is None:
                    add(Number("I", node.align), len(value))
                for item in value:
                    add(node.element, item)
            case Struct():
                for name, child in node.fields:
                    add(child, value[name])

    add(root, message)
    return header + bytes(body)
