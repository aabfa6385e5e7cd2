"""The whole run as a bag, written by a thread of its own; `iql-ros convert` takes it.

A run is a folder of parts, NAME/NAME_0.mcap and on, as rosbag2 splits a bag. A part gets its name
when it is whole, so that whatever ends the process or fills the disk costs the part under way.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from iql_ros.blackbox.mcap_file import Channel, McapEncoder, Message
from iql_ros.blackbox.recording_file import channels_of
from iql_ros.nodes.loading import Loaded
from iql_ros.nodes.settings import Settings, suffix_of

PART_S, PART_BYTES = 60.0, 256 << 20
MAX_WAITING_BYTES = 64 << 20
"""More than a disk that stalls may owe: then messages are left out, and counted."""
EVERY_S = 0.25


def open_recorder(
    settings: Settings, loaded: Loaded, name: str, log: Callable[[str], object]
) -> Recorder | None:
    """The recorder of a run that begins now; None if the parameter `record` is empty.

    Args:
        settings: of the node.
        loaded: the bundle that runs.
        name: of the node; begins the name of the run's folder.
        log: see `Recorder`.
    """
    if not settings.record:
        return None
    contract = loaded.bundle.contract
    heard = channels_of(contract, loaded.types, suffix_of(settings), contract.unseen)
    channels = {c.topic: c for c in heard}
    if settings.mode == "shadow":  # what moves the robot is what the bag is for
        channels |= {c.topic: c for c in channels_of(contract, loaded.types)}
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(settings.record).expanduser() / f"{name}-{stamp}"
    return Recorder(folder, channels.values(), log)


class Recorder:
    """Writes messages. Nothing here raises or waits, `close` apart.

    Attributes:
        state: what it does, in words.
    """

    def __init__(
        self, folder: Path, channels: Iterable[Channel], log: Callable[[str], object]
    ) -> None:
        """Starts the writer.

        Args:
            folder: of this run; made with the first message.
            channels: of all topics that `put` will name.
            log: told what could not be written.
        """
        self._folder, self._channels, self._log = folder, list(channels), log
        self._waiting: deque[Message] = deque()
        self._put_bytes = self._taken_bytes = self._left_out = self._parts = 0
        self._part: _Part | None = None
        self._has_failed = False
        self.state = f"recording to {folder}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, topic: str, t_ns: int, payload: bytes) -> None:
        """Has one message written."""
        if self._has_failed or self._put_bytes - self._taken_bytes > MAX_WAITING_BYTES:
            self._left_out += 1
            return
        self._put_bytes += len(payload)
        self._waiting.append(Message(topic, t_ns, payload))

    def close(self, seconds: float = 10.0) -> None:
        """Returns when all is written, or the disk has taken too long."""
        self._stopped.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._stopped.wait(EVERY_S):
                self._write()
            self._write()
            self._end_part()
        except OSError as error:  # a full disk must not end the controller
            self._has_failed = True
            self._waiting.clear()
            if self._part is not None:
                self._part.discard()
            self.state = f"recording has ended: {error.strerror or error}"
            self._log(f"{self.state}; {self._parts} whole parts are in {self._folder}")
        if self._left_out and not self._has_failed:
            self._log(f"recording: {self._left_out} messages were left out, the disk was too slow")

    def _write(self) -> None:
        part = self._part
        if part is not None and part.is_full:
            self._end_part()
            part = None
        if not self._waiting:
            return
        if part is None:
            path = self._folder / f"{self._folder.name}_{self._parts}.mcap"
            part = self._part = _Part(path, self._channels)
        for _ in range(len(self._waiting)):
            message = self._waiting.popleft()
            self._taken_bytes += len(message.data)
            part.add(message)
        part.flush()

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.end()
            self._parts += 1
            self._part = None


class _Part:
    """One file, under another name until it is whole."""

    def __init__(self, path: Path, channels: list[Channel]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._draft = path, path.with_name(path.name + ".tmp")
        self._encoder = McapEncoder(channels)
        self._began_s, self._size = time.monotonic(), 0
        self._file: BinaryIO = self._draft.open("wb")
        self._put(self._encoder.head())

    @property
    def is_full(self) -> bool:
        return time.monotonic() - self._began_s > PART_S or self._size > PART_BYTES

    def add(self, message: Message) -> None:
        self._put(self._encoder.message(message))

    def flush(self) -> None:
        self._file.flush()

    def end(self) -> None:
        self._put(self._encoder.tail(self._size))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self._path)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # what is left in the buffer does not fit either
            self._file.close()
        self._draft.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
