"""Moving through a payload along its message type, one node after another.

Every length is held against the bytes that are left before it is used, so that
damage ends in a LogError, after no more steps than the payload has bytes.
"""

from __future__ import annotations

import struct

from iql_ros.errors import LogError
from iql_ros.payloads.layout import Buffer
from iql_ros.payloads.messages import Encoding, List, Node, Struct, Text, span

# Byte order by the first two bytes of CDR (RTPS 2.5, table 10.3): plain CDR, version 1.
_BYTE_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}
HEADER_SIZE = 4

# DDS may fill a payload up to a multiple of 4 bytes.
_PADDING = 3


class Cursor:
    """A place in a payload, and the bytes that have decided the way to it.

    Attributes:
        order: "<" or ">", the order of the bytes of a number.
        position: The place, a byte of the payload.
    """

    def __init__(self, root: Struct, encoding: Encoding, payload: Buffer) -> None:
        """Stands at the first field of `payload`, a message of type `root`.

        Raises:
            LogError: the payload is too short or too long, or of an unknown encapsulation.
        """
        self._name = root.name
        self._payload = payload
        self._is_cdr = encoding == "cdr"
        self._origin = HEADER_SIZE if self._is_cdr else 0
        self.order = self._check_header() if self._is_cdr else "<"
        self._uint32 = struct.Struct(f"{self.order}I")
        self.position = self._origin
        self._decisive = {(0, 2)} if self._is_cdr else set[tuple[int, int]]()
        self._check_size(root)

    def skip(self, node: Node) -> None:
        """Moves behind the node that begins here."""
        if node.advance is not None:
            self.take(node.advance[(self.position - self._origin) % 8])
            return
        match node:
            case Text():
                self.take(self._uint(node.align))
            case Struct():
                for _, child in node.fields:
                    self.skip(child)
            case List():
                self.skip_elements(node.element, self.length(node))

    def skip_elements(self, element: Node, count: int) -> None:
        """Moves behind `count` elements, the first of which begins here."""
        if element.advance is not None:
            self.take(span(element.advance, self.position - self._origin, count))
            return
        for _ in range(count):
            self.skip(element)

    def length(self, node: List) -> int:
        """Returns the number of elements of the list here, and moves to the first."""
        if node.count is not None:
            return node.count
        count = self._uint(node.align)
        if node.bound is not None and count > node.bound:
            raise LogError(
                f"{self._name}: a sequence at byte {self.position - 4} has {count} elements, "
                f"at most {node.bound} are allowed: the payload is damaged or of another type"
            )
        self._need(count * node.element.minimum)
        return count

    def text(self, node: Text) -> str:
        """Returns the string here, and moves behind it; its content decides the way."""
        content = self.take(self._uint(node.align), decisive=True)
        if self._is_cdr:
            content = content.removesuffix(b"\x00")
        return content.decode(errors="replace")

    def align(self, size: int) -> None:
        """Moves to the next multiple of `size`, if this is none."""
        self.position += (self._origin - self.position) % size

    def take(self, size: int, *, decisive: bool = False) -> bytes:
        """Moves over `size` bytes; if they decide the way, notes and returns them."""
        self._need(size)
        start = self.position
        self.position += size
        if not decisive:
            return b""
        self._decisive.add((start, self.position))
        return bytes(self._payload[start : self.position])

    def template(self) -> tuple[tuple[int, bytes], ...]:
        """Returns (start, content) of the decisive bytes, joined where they touch."""
        joined: list[list[int]] = []
        for start, end in sorted(self._decisive):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([start, end])
        return tuple((start, bytes(self._payload[start:end])) for start, end in joined)

    def _uint(self, align: int) -> int:
        self.align(align)
        (value,) = self._uint32.unpack(self.take(4, decisive=True))
        return int(value)

    def _need(self, size: int) -> None:
        if self.position + size > len(self._payload):
            raise LogError(
                f"{self._name}: {size} bytes needed at byte {self.position}, payload has "
                f"{len(self._payload)}: it is truncated or of another type"
            )

    def _check_header(self) -> str:
        header = bytes(self._payload[:2])
        if len(self._payload) < HEADER_SIZE:
            raise LogError(
                f"{self._name}: payload has {len(self._payload)} bytes, its CDR header alone "
                f"needs {HEADER_SIZE}: it is truncated"
            )
        if header not in _BYTE_ORDERS:
            raise LogError(
                f"{self._name}: the CDR header begins with {header.hex()}, only 0000 and 0001 "
                "(plain CDR, version 1) can be read, not PL_CDR or XCDR2: "
                "set the middleware to XCDR1"
            )
        return _BYTE_ORDERS[header]

    def _check_size(self, root: Struct) -> None:
        size = len(self._payload) - self._origin
        if root.advance is None:
            fits, need = size >= root.minimum, f"at least {root.minimum}"
        else:
            spare = _PADDING if self._is_cdr else 0
            fits, need = 0 <= size - root.advance[0] <= spare, str(root.advance[0])
        if not fits:
            raise LogError(
                f"{self._name}: a message takes {need} bytes, payload has {size}: "
                "it is truncated or of another type"
            )
