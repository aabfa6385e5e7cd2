"""The folder of a bundle: which files it may hold, reading them, putting it in place."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from iql_ros.bundles.format import (
    BUNDLE_FILE,
    GATE_FILE,
    GOLDEN_FILE,
    MAX_BYTES,
    POLICY_FILE,
    SIGNATURE_FILE,
)
from iql_ros.errors import BundleError

REQUIRED_FILES = (BUNDLE_FILE, POLICY_FILE, GOLDEN_FILE)
OPTIONAL_FILES = (GATE_FILE, SIGNATURE_FILE)


def check_listing(path: Path) -> None:
    """Exactly the known files, each a regular file: no links, folders or devices."""
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: give the folder that `iql-ros export` wrote")
    names = {entry.name for entry in os.scandir(path)}
    for name in REQUIRED_FILES:
        if name not in names:
            raise BundleError(f"{path / name} is missing: copy the whole folder, or export again")
    for name in sorted(names - {*REQUIRED_FILES, *OPTIONAL_FILES}):
        raise BundleError(f"{path} holds {name!r}, which is no part of a bundle: remove it")
    for name in sorted(names):
        if not stat.S_ISREG((path / name).lstat().st_mode):
            raise BundleError(f"{path / name} is a link or folder, must be a plain file")


def read_bounded(file: Path) -> bytes:
    """The content of a file, which must be no larger than its kind may be."""
    limit = MAX_BYTES[file.name]
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise BundleError(f"{file} has more than {limit} bytes, the most that is read")
    return data


def check_free(out: Path, force: bool) -> None:
    """Refuses a place that is taken, or with `force` one that is taken by anything else."""
    if not os.path.lexists(out):
        return
    if not force:
        raise BundleError(f"{out} exists: choose another folder, or replace it with --force")
    # Force replaces bundles; it must not be able to delete somebody's home.
    if out.is_symlink() or not (out / BUNDLE_FILE).is_file():
        raise BundleError(f"{out} exists and is no bundle: remove it yourself first")


def put_in_place(draft: Path, out: Path) -> None:
    """Renames `draft` to `out`; a bundle that is there stays whole until that moment."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    try:
        draft.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
