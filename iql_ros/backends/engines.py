"""Engines on disk: built once on a machine, found again by all that they depend on.

An engine is code: a runtime executes what is in the file. So the folder must be the user's
own and closed to others, every engine has a sidecar with its hash, and the bytes that were
hashed are the bytes that are deserialised.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iql_ros.backends.cuda import Device
from iql_ros.errors import BundleError

FORMAT = 1
_SIDECAR, _ENGINE, _TIMING = ".json", ".engine", ".timing"


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        policy_sha256: of `policy.onnx`, as exported.
        precision: what it was rewritten to.
        flags: recipe of the rewriting, builder options, and for int8 the calibration.
        tensorrt: full version.
        compute_capability: "8.7".
        device: its name: tactics are chosen by measuring, and clocks and caches differ.
    """

    policy_sha256: str
    precision: str
    flags: str
    tensorrt: str
    compute_capability: str
    device: str

    def name(self) -> str:
        """A file name, the same for equal keys only."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def misfit(self, tensorrt: str, device: Device) -> str:
        """Why this machine cannot use such an engine; empty if it can."""
        for what, mine, its in (
            ("TensorRT", tensorrt, self.tensorrt),
            ("compute capability", device.compute_capability, self.compute_capability),
            ("device", device.name, self.device),
        ):
            if mine != its:
                return f"built for {what} {its}, here is {mine}"
        return ""


@dataclass(frozen=True, eq=False)
class Engine:
    """An engine with what is known of it.

    Attributes:
        facts: bundle digest, parity, build time: JSON values for people.
    """

    key: EngineKey
    data: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """What lies in the cache: `key` is None where `fault` says that it cannot be used."""

    path: Path
    size: int
    key: EngineKey | None
    facts: Mapping[str, Any]
    fault: str


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/iql_ros/engines`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "iql_ros" / "engines"


def open_cache(folder: Path) -> Path:
    """The folder, made if need be. Raises BundleError unless it is the user's alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise BundleError(
            f"engine cache {folder} cannot be made ({error.strerror}): name another with --cache"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise BundleError(f"engine cache {folder} is a link, must be a folder: name its target")
    if status.st_uid != os.geteuid():
        raise BundleError(
            f"engine cache {folder} belongs to user {status.st_uid}, you are {os.geteuid()}: "
            f"engines are code, name a folder of your own with --cache"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise BundleError(
            f"engine cache {folder} has mode {mode:04o}, others can get at it and engines are "
            f"code: chmod 700 {folder} (if nobody else wrote there), or name another with --cache"
        )
    return folder


def store_engine(folder: Path, engine: Engine) -> Path:
    """Writes an engine and its sidecar; one of the same key is replaced. Returns the engine's path.

    The engine is named by key and content, and the sidecar, renamed into place last, names it:
    two processes that build at the same time leave one whole pair.
    """
    folder = open_cache(folder)
    digest = hashlib.sha256(engine.data).hexdigest()
    path = folder / f"{engine.key.name()}-{digest[:16]}{_ENGINE}"
    _write(path, engine.data)
    document = {
        "format": FORMAT,
        "key": asdict(engine.key),
        "engine": path.name,
        "engine_sha256": digest,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": dict(engine.facts),
    }
    _write(folder / f"{engine.key.name()}{_SIDECAR}", json.dumps(document, indent=2).encode())
    return path


def find_engine(folder: Path, key: EngineKey) -> Engine | None:
    """The engine of a key, its hash checked, or None. Raises BundleError as `open_cache`."""
    sidecar = open_cache(folder) / f"{key.name()}{_SIDECAR}"
    if not os.path.lexists(sidecar):
        return None
    try:
        engine, _ = _read(sidecar)
    except ValueError:  # damaged: the next build replaces it, `engines` lists it
        return None
    return engine if engine.key == key else None


def list_engines(folder: Path) -> list[Entry]:
    """Every engine of a cache, also damaged ones and files that belong to none."""
    folder = open_cache(folder)
    entries = []
    named = set()
    for sidecar in sorted(folder.glob(f"*{_SIDECAR}")):
        try:
            engine, path = _read(sidecar)
        except ValueError as error:
            entries.append(Entry(sidecar, _size(sidecar), None, {}, str(error)))
            continue
        named.add(path)
        entries.append(Entry(path, len(engine.data), engine.key, engine.facts, ""))
    for path in sorted(folder.iterdir()):
        if path.suffix not in (_SIDECAR, _TIMING) and path not in named:
            entries.append(Entry(path, _size(path), None, {}, "no sidecar names it"))
    return entries


def remove_entry(entry: Entry) -> None:
    """Removes an engine with its sidecar, or a file that belongs to none."""
    for path in _files_of(entry):
        path.unlink(missing_ok=True)


def timing_cache(folder: Path, tensorrt: str, device: Device) -> Path:
    """Where the measurements of tactics are kept, which make the next build faster."""
    text = f"{tensorrt} {device.compute_capability} {device.name}"
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{_TIMING}"


def read_timing(path: Path) -> bytes:
    """The content of a timing cache, empty if there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_timing(path: Path, data: bytes) -> None:
    """Writes a timing cache whole."""
    _write(path, data)


# -- files -------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".draft")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _read(sidecar: Path) -> tuple[Engine, Path]:
    """The engine that a sidecar names, and its file. Raises ValueError saying what is amiss."""
    try:
        document = json.loads(sidecar.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"sidecar has format {document['format']!r}, this reads {FORMAT}")
        key = EngineKey(**document["key"])
        name, digest, facts = document["engine"], document["engine_sha256"], document["facts"]
        words = (name, digest, *asdict(key).values())
        if not all(isinstance(word, str) for word in words) or not isinstance(facts, dict):
            raise ValueError("sidecar is damaged")
        path = sidecar.with_name(name)  # refuses what is more than a name
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"engine cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"sidecar is damaged ({error!r})") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("engine has another SHA-256 than its sidecar says")
    return Engine(key, data, facts), path


def _files_of(entry: Entry) -> Iterator[Path]:
    yield entry.path
    if entry.key is not None:
        yield entry.path.with_name(f"{entry.key.name()}{_SIDECAR}")


def _size(path: Path) -> int:
    return path.lstat().st_size
