"""What `policy.onnx` may hold, read from its bytes: a robot does not need the package `onnx`.

A graph can name files for its weights, which no hash and no signature covers and which runtimes
look for where the process happens to run. It can draw numbers of its own, or loop without end.
None of that is a policy whose golden pairs prove it.
"""

from __future__ import annotations

from collections.abc import Iterator

from iql_ros.bundles.format import OPSET
from iql_ros.errors import BundleError

# Numbers of the fields in onnx.proto that lead to nodes and tensors, by kind of message.
_INSIDE = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TRAINING, _FUNCTIONS = 20, 25  # of a model
_OPERATOR = 4  # of a node
_EXTERNAL, _LOCATION = 13, 14  # of a tensor

_DRAWING = {
    *("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"),
    *("RandomUniform", "RandomUniformLike"),
}
_LOOPING = {"Loop", "Scan"}


def check_graph(policy: bytes, where: str) -> None:
    """Raises BundleError unless a model is one graph of the opset, whole in itself, and fixed.

    Args:
        policy: a serialised ModelProto; no more of it is read than is named here.
        where: the file, for errors.
    """
    opsets: dict[str, int] = {}
    left = [("model", memoryview(policy))]
    try:
        while left:
            kind, data = left.pop()
            if kind == "opset":
                opsets.update([_opset(data)])
                continue
            for number, value in _fields(data):
                if isinstance(value, memoryview) and number in _INSIDE.get(kind, {}):
                    left.append((_INSIDE[kind][number], value))
                elif value and (reason := _fault(kind, number, value)):
                    raise BundleError(f"{where}: {reason}: export the bundle again")
    except ValueError as error:
        raise BundleError(f"{where} is no ONNX model ({error}): export the bundle again") from None
    if opsets != {"": OPSET}:
        raise BundleError(
            f"{where}: its operators are of {opsets}, must be ONNX's own of opset {OPSET}: "
            f"export the bundle again"
        )


def _fault(kind: str, number: int, value: int | memoryview) -> str:
    """Why a field that is set must not be; empty if it may."""
    if kind == "tensor" and number in (_EXTERNAL, _LOCATION):
        return "weights lie in another file, which no hash covers, must lie in this one"
    if kind == "model" and number in (_TRAINING, _FUNCTIONS):
        return "it holds functions or a training graph, must be one graph"
    if kind == "node" and number == _OPERATOR and isinstance(value, memoryview):
        operator = bytes(value).decode(errors="replace")
        if operator in _DRAWING:
            return f"operator {operator} draws numbers of its own, must take the input noise"
        if operator in _LOOPING:
            return f"operator {operator} may take for ever, must be unrolled"
    return ""


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, memoryview):
            domain = bytes(value).decode()
        elif number == 2 and isinstance(value, int):
            version = value
    return ("" if domain == "ai.onnx" else domain), version


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protocol buffer message; fixed-size values as 0."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if tag >> 32 or number == 0:
            raise ValueError(f"field {number} at byte {place}")
        value: int | memoryview = 0
        if wire == 0:
            value, place = _varint(data, place)
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        elif wire == 2:
            size, place = _varint(data, place)
            value = data[place : place + size]
            place += size
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place > len(data):
            raise ValueError("it ends within a field")
        yield number, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = 0
    for i, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, place + i + 1
    raise ValueError(f"no number at byte {place}")
