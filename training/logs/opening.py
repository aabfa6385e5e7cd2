"""Finding logs and opening them: what a file is, its first bytes say, not its name."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import zstandard

from iql_ros.errors import LogError
from training.logs import mcap_records, ros1_records, sqlite3
from training.logs.folder import SUFFIXES, is_bag_folder, open_folder, storage_files
from training.logs.log import ZSTD_MAGIC, Block, Log
from training.logs.mcap import open_mcap
from training.logs.ros1 import open_ros1
from training.logs.temporary import TemporaryFolder

COPY_BYTES = 1 << 20
# A temporary copy leaves this much of the disk free.
SPARE_BYTES = 1 << 28


def open_log(path: Path) -> Log:
    """Opens a robot log: a rosbag2 folder, .mcap, .db3, either with .zstd, or a ROS 1 .bag.

    Raises:
        LogError: it is none of these, or too damaged to be read.
    """
    path = Path(path)
    if path.is_dir() and all(file.name.endswith(".bag") for file in storage_files(path)):
        found = find_logs([path])
        if len(found) > 1:
            raise LogError(f"{path} holds {len(found)} logs: name one of them")
        path = found[0]
    try:
        return open_folder(path, _open_file) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from error


def find_logs(paths: Iterable[Path]) -> list[Path]:
    """The logs among files and folders, folders searched through: sorted, each once.

    Raises:
        LogError: a path does not exist or has no log in it.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        try:
            here = set(_logs_in(path)) if path.is_dir() else {path} if path.is_file() else set()
        except OSError as error:
            raise LogError(f"{path}: {error.strerror or error}") from error
        if not here:
            raise LogError(
                f"{path}: {'holds no log' if path.exists() else 'does not exist'} "
                f"(looked for bag folders and {', '.join(SUFFIXES)})"
            )
        found |= {log.resolve() for log in here}
    return sorted(found)


def _logs_in(folder: Path) -> Iterator[Path]:
    if is_bag_folder(folder):
        yield folder
        yield from (file for file in storage_files(folder) if file.name.endswith(".bag"))
    else:
        yield from storage_files(folder)
    for child in sorted(folder.iterdir()):
        # A hidden folder is somebody's unfinished work.
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _logs_in(child)


def _open_file(path: Path) -> Log:
    if not _starts(path).startswith(ZSTD_MAGIC):
        return _open_storage(path)
    # A copy is decompressed into a temporary folder that lives as long as the log.
    folder = TemporaryFolder()
    plain = folder.path / path.name.removesuffix(".zstd")
    findings = _decompress(path, plain)
    try:
        log = _open_storage(plain)
    except LogError as error:
        raise LogError(str(error).replace(str(plain), str(path))) from None
    log.findings.extend(findings)
    return replace(log, path=path, read=partial(_read_copy, folder, log))


def _read_copy(folder: TemporaryFolder, log: Log, topics: Collection[str]) -> Iterator[Block]:
    """Blocks of a log in a temporary folder, which stays while something refers to it."""
    return log.read(topics)


def _open_storage(path: Path) -> Log:
    magic = _starts(path)
    if not magic:
        raise LogError(f"{path}: empty (0 bytes): was the recorder killed at once?")
    if magic.startswith(mcap_records.MAGIC):
        return open_mcap(path)
    if magic == sqlite3.MAGIC:
        return sqlite3.open_sqlite(path)
    if magic.startswith(ros1_records.MAGIC):
        return open_ros1(path)
    if magic.startswith(b"#ROSBAG V"):
        version = magic[9:12].decode(errors="replace")
        raise LogError(f"{path}: a bag of version {version}, not 2.0: `rosbag fix` converts it")
    raise LogError(
        f"{path}: not a robot log: it begins with {magic[:8]!r}, and neither MCAP, rosbag2 "
        "sqlite3 nor ROS 1 bags begin so"
    )


def _starts(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(sqlite3.MAGIC))


def _decompress(path: Path, plain: Path) -> list[str]:
    """Writes what can be decompressed; returns a finding if that is not all."""
    room = shutil.disk_usage(plain.parent).free - SPARE_BYTES
    with path.open("rb") as packed, plain.open("wb") as out:
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        try:
            while piece := reader.read(COPY_BYTES):
                room -= len(piece)
                if room < 0:
                    raise LogError(
                        f"{path}: decompressed it does not fit into {plain.parent}: set TMPDIR "
                        "to a larger disk"
                    )
                out.write(piece)
        except zstandard.ZstdError as error:
            return [f"zstd data damaged after {out.tell()} bytes ({error}): read up to there"]
    return []
