"""The walk over one payload that finds the slots of its wanted numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from iql_ros.contracts.paths import Field, Index, Where
from iql_ros.payloads.cursor import Cursor
from iql_ros.payloads.layout import Buffer, Layout
from iql_ros.payloads.messages import Encoding, List, Node, Number, Struct, Text
from iql_ros.payloads.targets import Labelled, Target, TargetStep


def walk(root: Struct, targets: Sequence[Target], encoding: Encoding, payload: Buffer) -> Layout:
    """Returns the layout of `payload`, a message of type `root`.

    Raises:
        LogError: the payload is truncated, or is no such message.
    """
    cursor = Cursor(root, encoding, payload)
    search = _Search(cursor, len(targets))
    try:
        search.visit(root, targets, 0)
    except _Absent as reason:
        return Layout(len(payload), cursor.order, cursor.template(), (), str(reason))
    slots = tuple(search.slots[target.place] for target in targets)
    return Layout(len(payload), cursor.order, cursor.template(), slots, None)


class _Absent(Exception):
    """The message is well formed, but a wanted element is not in it."""


class _Search:
    """What has been found on the way: slots by place, names by the depth of their message."""

    def __init__(self, cursor: Cursor, wanted: int) -> None:
        self.cursor = cursor
        self.open = wanted
        self.slots: dict[int, tuple[int, str]] = {}
        self.names: dict[tuple[int, str], list[str]] = {}

    def visit(self, node: Node, targets: Sequence[Target], depth: int) -> None:
        """Finds `targets`, which all lie in the node here, `depth` steps from the root.

        Moves behind the node, unless no target is open any more.
        """
        if not targets:
            self.cursor.skip(node)
            return
        match node:
            case Number():
                self.cursor.align(node.align)
                for target in targets:
                    self.slots[target.place] = (self.cursor.position, node.code)
                self.cursor.take(node.minimum)
                self.open -= len(targets)
            case Struct():
                self._visit_fields(node, targets, depth)
            case List():
                self._visit_elements(node, targets, depth)
            case Text():
                raise AssertionError("targets end at numbers")

    def _visit_fields(self, node: Struct, targets: Sequence[Target], depth: int) -> None:
        steps = [step for target in targets for step in target.steps]
        for field in {s.field for s in steps if isinstance(s, Labelled) and s.depth == depth}:
            self.names[depth, field] = self._texts(node, field)
        for name, child in node.fields:
            self.visit(child, [t for t in targets if t.steps[depth] == Field(name)], depth + 1)
            if not self.open:
                return

    def _visit_elements(self, node: List, targets: Sequence[Target], depth: int) -> None:
        count = self.cursor.length(node)
        numbered: dict[int, list[Target]] = {}
        keyed: dict[Where, list[Target]] = {}
        for target in targets:
            step = target.steps[depth]
            if isinstance(step, Where):
                keyed.setdefault(step, []).append(target)
            else:
                numbered.setdefault(self._number(step, count), []).append(target)
        if keyed:
            self._search_elements(node.element, count, numbered, keyed, depth)
            return
        done = 0
        for number in sorted(numbered):
            self.cursor.skip_elements(node.element, number - done)
            self.visit(node.element, numbered[number], depth + 1)
            if not self.open:
                return
            done = number + 1
        self.cursor.skip_elements(node.element, count - done)

    def _search_elements(
        self,
        element: Node,
        count: int,
        numbered: dict[int, list[Target]],
        keyed: dict[Where, list[Target]],
        depth: int,
    ) -> None:
        """Visits every element: only there is its key, by which some targets choose."""
        for number in range(count):
            here = numbered.get(number, [])
            values = {where.key: self._key(element, where.key) for where in keyed}
            for where in [where for where in keyed if values[where.key] == where.value]:
                here = here + keyed.pop(where)
            self.visit(element, here, depth + 1)
            if not self.open:
                return
        for where in keyed:
            key = ".".join(where.key)
            raise _Absent(f"none of the {count} elements has {key} = {where.value!r}")

    def _number(self, step: TargetStep, count: int) -> int:
        """Returns the number of the element that `step` selects, of `count`."""
        if isinstance(step, Index):
            number, what = step.number, f"element [{step.number}]"
        else:
            assert isinstance(step, Labelled)
            names = self.names[step.depth, step.field]
            if step.name not in names:
                raise _Absent(f"joint {step.name!r} is not in {step.field} = {names}")
            number = names.index(step.name)
            what = f"joint {step.name!r}, number {number} of {step.field},"
        if number >= count:
            raise _Absent(f"{what} is not there, the sequence has {count} elements")
        return number

    def _key(self, element: Node, key: tuple[str, ...]) -> str:
        """Returns the field at `key` of the element here, as text; stays here."""
        start, node = self.cursor.position, element
        for name in key:
            assert isinstance(node, Struct)
            node = self._enter(node, name)
        if isinstance(node, Text):
            value = self.cursor.text(node)
        else:
            assert isinstance(node, Number)
            self.cursor.align(node.align)
            content = self.cursor.take(node.minimum, decisive=True)
            value = str(struct.unpack(f"{self.cursor.order}{node.code}", content)[0])
        self.cursor.position = start
        return value

    def _texts(self, message: Struct, name: str) -> list[str]:
        """Returns the strings in the field `name` of the message here; stays here."""
        start = self.cursor.position
        node = self._enter(message, name)
        assert isinstance(node, List)
        assert isinstance(node.element, Text)
        texts = [self.cursor.text(node.element) for _ in range(self.cursor.length(node))]
        self.cursor.position = start
        return texts

    def _enter(self, message: Struct, name: str) -> Node:
        """Moves to the field `name` of the message here, and returns its node."""
        for field, node in message.fields:
            if field == name:
                return node
            self.cursor.skip(node)
        raise AssertionError("targets were resolved against this message")
