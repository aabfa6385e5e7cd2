"""The last seconds of a controller's life, kept so that they can be lived again.

A ring of pages of about a second. A page begins with all that the controller remembered then,
and goes on with what came in and what was decided, in order. Recording an event costs well
under a microsecond; the work of turning it into a file is left to `recording_file`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from iql_ros.blackbox.recording import Decided, Event, Noted, Received, Recording
from iql_ros.blackbox.recording_file import write_recording
from iql_ros.contract import Contract
from iql_ros.control.command import Command

PAGE_NS = 1_000_000_000
PAGE_EVENTS = 20_000
"""A page ends also here, as time may stand still while messages come."""


@dataclass
class _Page:
    start_ns: int
    state: Mapping[str, Any]
    events: list[Event] = field(default_factory=list)
    size: int = 0


class BlackBox:
    """Records one controller, which calls it. Its own methods never raise, `dump` apart."""

    def __init__(
        self,
        contract: Contract,
        types: Typestore,
        seconds: float = 30.0,
        *,
        about: Mapping[str, str] | None = None,
        suffix: str = "",
        max_bytes: int = 64 << 20,
    ) -> None:
        """An empty box.

        Args:
            contract: of the controller.
            types: message definitions of its topics, for the file.
            seconds: kept at least, where `max_bytes` allows it.
            about: what identifies the controller, such as the bundle's digest.
            suffix: of the names of command topics, as in shadow mode.
            max_bytes: of payloads; beyond it the oldest page goes.
        """
        self._contract, self._types = contract, types
        self._about, self._suffix = dict(about or {}), suffix
        self._max_pages, self._max_bytes = int(seconds) + 2, max_bytes
        self._pages: deque[_Page] = deque()
        self._page = _Page(0, {})

    def is_page_full(self, t_ns: int) -> bool:
        """Whether a new page is due before the event at t."""
        page = self._page
        return (
            not self._pages
            or not 0 <= t_ns - page.start_ns < PAGE_NS
            or len(page.events) >= PAGE_EVENTS
            or page.size > self._max_bytes // 4
        )

    def open_page(self, t_ns: int, state: Mapping[str, Any]) -> None:
        """Begins a page with what the controller remembers now; the oldest may go."""
        self._page = _Page(t_ns, state)
        self._pages.append(self._page)
        while len(self._pages) > 1 and (
            len(self._pages) > self._max_pages
            or sum(page.size for page in self._pages) > self._max_bytes
        ):
            self._pages.popleft()

    def put(self, alias: str, t_ns: int, payload: bytes | memoryview) -> None:
        """Records a message that came in."""
        self._page.events.append(Received(alias, t_ns, bytes(payload)))
        self._page.size += len(payload)

    def decided(self, kind: str, command: Command, **arguments: Any) -> None:
        """Records a command, and the arguments of the call that gave it."""
        self._page.events.append(Decided(kind, command, arguments))

    def note(self, kind: str) -> None:
        """Records a call that gives no command."""
        self._page.events.append(Noted(kind))

    def recording(self) -> Recording | None:
        """What it holds now; None if nothing has happened. Quick: call it between two ticks."""
        pages = list(self._pages)
        if not pages:
            return None
        events = tuple(event for page in pages for event in page.events)
        first = pages[0]
        return Recording(self._contract, self._about, first.start_ns, first.state, events)

    def dump(self, path: Path, recording: Recording | None = None) -> Path | None:
        """Writes an .mcap file, whole or not at all.

        Args:
            path: of the file.
            recording: taken before, as under a lock; by default what the box holds now.

        Returns:
            The path; None if nothing has happened yet.

        Raises:
            LogError: the file cannot be written, as when the disk is full.
        """
        recording = recording or self.recording()
        if recording is None:
            return None
        return write_recording(recording, path, self._types, self._suffix)
