"""Paths, checked against a message type: what a walk over its bytes looks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iql_ros.contracts.paths import (
    NAME_FIELDS,
    Component,
    Field,
    FieldPath,
    Index,
    Named,
    Step,
    Where,
    parse_path,
)
from iql_ros.errors import ContractError
from iql_ros.payloads.messages import List, Node, Number, Struct, Text


@dataclass(frozen=True)
class Labelled:
    """The element whose name, in the names that a message above it holds, is `name`.

    `depth` counts the steps from the root to that message, `field` is its field.
    """

    name: str
    depth: int
    field: str


TargetStep = Field | Index | Where | Labelled


@dataclass(frozen=True)
class Target:
    """One number to be found: its place among the values, and the way to it."""

    place: int
    steps: tuple[TargetStep, ...]


def find_targets(root: Struct, paths: Sequence[str]) -> tuple[Target, ...]:
    """Returns one target per component of `paths`, in their order.

    Raises:
        ContractError: a path is malformed, or not one of a number in `root`.
    """
    targets: list[Target] = []
    for path in map(parse_path, paths):
        for component in path.components:
            steps, node = _resolve(root, path, component)
            if not isinstance(node, Number):
                raise ContractError(
                    f"path {path.text!r} in {root.name!r} ends at {_describe(node)}: "
                    "it must end at a number"
                )
            targets.append(Target(len(targets), steps))
    return tuple(targets)


def find_node(root: Struct, path: str) -> tuple[tuple[TargetStep, ...], Node]:
    """Returns the way along `path`, of one component, and what lies there: any node.

    Raises:
        ContractError: the path is malformed, has several components, or is not in `root`.
    """
    parsed = parse_path(path)
    if len(parsed.components) > 1:
        raise ContractError(f"path {path!r} has several components, here it must have one")
    return _resolve(root, parsed, parsed.components[0])


def _resolve(
    root: Struct, path: FieldPath, component: Component
) -> tuple[tuple[TargetStep, ...], Node]:
    node: Node = root
    above: list[tuple[int, Struct]] = []
    steps: list[TargetStep] = []
    for depth, step in enumerate(component.steps):
        if isinstance(node, Struct):
            above.append((depth, node))
        try:
            node, resolved = _descend(node, step, above)
        except ContractError as error:
            raise ContractError(f"path {path.text!r} in {root.name!r}: {error}") from None
        steps.append(resolved)
    return tuple(steps), node


def _descend(node: Node, step: Step, above: list[tuple[int, Struct]]) -> tuple[Node, TargetStep]:
    if isinstance(step, Field):
        return _field(node, step.name), step
    if not isinstance(node, List):
        raise ContractError(f"{_words(step)} needs a sequence, and this is {_describe(node)}")
    match step:
        case Index(number):
            most = node.bound if node.count is None else node.count
            if most is not None and number >= most:
                raise ContractError(
                    f"[{number}] is out of range, there are at most {most} elements"
                )
            return node.element, step
        case Where(key, _):
            found: Node = node.element
            for name in key:
                found = _field(found, name)
            if not isinstance(found, Text | Number) or (
                isinstance(found, Number) and found.code in "?fd"
            ):
                raise ContractError(f"{'.'.join(key)!r} is neither a string nor an integer")
            return node.element, step
        case Named(name):
            depth, field = _names(above, name)
            return node.element, Labelled(name, depth, field)


def _field(node: Node, name: str) -> Node:
    if not isinstance(node, Struct):
        raise ContractError(f"field {name!r} cannot be: this is {_describe(node)}")
    found = node.field(name)
    if found is None:
        fields = ", ".join(name for name, _ in node.fields)
        raise ContractError(f"{node.name!r} has no field {name!r}, it has: {fields}")
    return found


def _names(above: list[tuple[int, Struct]], name: str) -> tuple[int, str]:
    """Finds the innermost string sequence that gives names to elements."""
    for depth, message in reversed(above):
        for field, node in message.fields:
            if field in NAME_FIELDS and isinstance(node, List) and isinstance(node.element, Text):
                return depth, field
    raise ContractError(
        f"[{name}] selects by name, and no message above it has a string sequence "
        f"called {', '.join(NAME_FIELDS)}: use a number"
    )


def _words(step: Step) -> str:
    match step:
        case Index(number):
            return f"[{number}]"
        case Where(key, value):
            return f"[{'.'.join(key)}={value}]"
        case Field(name) | Named(name):
            return f"[{name}]"


def _describe(node: Node) -> str:
    match node:
        case Number():
            return "a number, which has no parts"
        case Text():
            return "a string"
        case List():
            return "a sequence: select an element, as in [0]"
        case Struct(name, fields):
            return f"a message {name!r} with the fields {', '.join(field for field, _ in fields)}"
