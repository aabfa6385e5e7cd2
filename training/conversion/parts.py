"""What one log gave, kept in a file until the dataset is whole: so that no log is read twice.

A part is named after all that decides its content: the log, the contract, the code and, where
the contract calls one, the user's reward function. It is written whole or not at all, and it is
read only if its checksum agrees.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iql_ros
from iql_ros.contract import Contract
from training.logs.folder import storage_files

Arrays = Mapping[str, NDArray[Any]]

# SHA-256 runs at 1.6 GB/s here, reading an uncompressed log at 7: of a large log, hashing all
# would take most of the time. Up to this size it costs 40 ms at most.
WHOLE_BYTES = 1 << 26
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
SIDES = ("-wal", "-journal")


@dataclass(frozen=True)
class Identity:
    """Which log it is.

    Attributes:
        sha256: of a log of up to 64 MiB, all its bytes: of a lone file, what `sha256sum` says.
            Of a larger one, of the size and 64 blocks of 64 KiB of each file, the first and
            the last bytes among them.
        sampled: whether it is of blocks.
        size: bytes on disk.
        changed_ns: when a file of it was last written.
    """

    sha256: str
    sampled: bool
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Part:
    """A finished log: the facts on it, and the file that has its columns.

    `resumed`: the file was there already.
    """

    file: Path
    source: Mapping[str, Any]
    facts: Mapping[str, int | float]
    findings: tuple[str, ...]
    resumed: bool = False


def identify(path: Path) -> Identity:
    """The identity of a log: a file with what is pending beside it, or a bag folder."""
    files = _files(path)
    stats = [file.stat() for file in files]
    size = sum(stat.st_size for stat in stats)
    sampled = size > WHOLE_BYTES
    digest = hashlib.sha256()
    for file, stat in zip(files, stats, strict=True):
        if len(files) > 1 or path.is_dir() or sampled:
            digest.update(f"{file.name}\0{stat.st_size}\0".encode())
        with file.open("rb") as stream:
            if not sampled or stat.st_size <= SAMPLES * SAMPLE_BYTES:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
                continue
            for i in range(SAMPLES):
                stream.seek((stat.st_size - SAMPLE_BYTES) * i // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    changed_ns = max((stat.st_mtime_ns for stat in stats), default=0)
    return Identity(digest.hexdigest(), sampled, size, changed_ns)


def log_size(path: Path) -> int:
    """Bytes of a log on disk."""
    return sum(file.stat().st_size for file in _files(path))


def part_file(folder: Path, identity: Identity, contract: Contract) -> Path:
    """Where the part of a log lies, if it was finished before."""
    decides = [identity.sha256, contract.digest(), _code(), _reward_code(contract)]
    if identity.sampled:
        decides.append(str(identity.changed_ns))
    return folder / f"{hashlib.sha256(json.dumps(decides).encode()).hexdigest()}.npz"


def write_part(file: Path, columns: Arrays, about: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a part, which has its name only once it is complete; returns the facts as stored."""
    header = json.dumps(about, sort_keys=True)
    arrays: dict[str, Any] = {**columns, "about": np.frombuffer(header.encode(), np.uint8)}
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **{**arrays, "sha256": _checksum(arrays)})
    temporary.replace(file)
    stored: dict[str, Any] = json.loads(header)
    return stored


def read_part(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The columns and facts of a part; None if it is not there or not as it was written."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        checksum = arrays.pop("sha256")
        if not np.array_equal(checksum, _checksum(arrays)):
            return None
        about = json.loads(arrays.pop("about").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays, about


def load_or_make(
    path: Path,
    contract: Contract,
    folder: Path,
    make: Callable[[Path, Contract, Identity], tuple[Arrays, dict[str, Any]]],
) -> Part:
    """The part of a log: the one in the folder, or else one that `make` gives."""
    identity = identify(path)
    file = part_file(folder, identity, contract)
    found = read_part(file)
    if found is None:
        columns, about = make(path, contract, identity)
        about = write_part(file, columns, about)
    else:
        about = found[1]
    source = {**about["source"], "name": path.name}  # a copy under another name has one part
    return Part(file, source, about["facts"], tuple(about["findings"]), found is not None)


def _files(path: Path) -> list[Path]:
    """The files that a log consists of."""
    stored = storage_files(path) if path.is_dir() else [path]
    pending = [Path(f"{file}{side}") for file in stored for side in SIDES]
    files = [*stored, *pending, *([path / "metadata.yaml"] if path.is_dir() else [])]
    return [file for file in files if file.is_file()]


def _checksum(arrays: Arrays) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint8)


@cache
def _code() -> str:
    """Hash of the code that converts: a part that an older one left is not trusted."""
    folders = (Path(__file__).parent, Path(iql_ros.__file__).parent)
    return _hash_of(file for folder in folders for file in folder.rglob("*.py"))


def _reward_code(contract: Contract) -> str:
    """Hash of the Python files beside the reward function, which is no part of the contract."""
    if contract.reward.function is None:
        return ""
    try:
        module = importlib.import_module(contract.reward.function.partition(":")[0])
    except ImportError:
        return ""  # the conversion says so, and names the key of the contract
    return _hash_of(Path(module.__file__).parent.glob("*.py")) if module.__file__ else ""


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
