"""The folder of a bundle: which files it may hold, reading them, putting it in place."""

from __future__ import annotations

import errno
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
_NOT_PLAIN = "is a link or folder, must be a plain file"


def check_listing(path: Path) -> None:
    """Exactly the known files, each a regular file: no links, folders or devices."""
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: give the folder that `iql-ros export` wrote")
    try:
        names = {entry.name for entry in os.scandir(path)}
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    for name in REQUIRED_FILES:
        if name not in names:
            raise BundleError(f"{path / name} is missing: copy the whole folder, or export again")
    for name in sorted(names - {*REQUIRED_FILES, *OPTIONAL_FILES}):
        raise BundleError(f"{path} holds {name!r}, which is no part of a bundle: remove it")
    for name in sorted(names):
        if not stat.S_ISREG((path / name).lstat().st_mode):
            raise BundleError(f"{path / name} {_NOT_PLAIN}")


def read_bounded(file: Path) -> bytes:
    """The content of a plain file, which must be no larger than its kind may be.

    Asked of what was opened: whatever took the file's place since the listing is refused too.
    """
    limit = MAX_BYTES[file.name]
    try:
        with open(file, "rb", opener=_open_plain) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        told = _NOT_PLAIN if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise BundleError(f"{file} {told}") from None
    if len(data) > limit:
        raise BundleError(f"{file} has more than {limit} bytes, the most that is read")
    return data


def _open_plain(path: str, flags: int) -> int:
    # Without waiting, which a pipe that nobody writes into would make it do.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ELOOP, "not a plain file")  # as the system says it of a link


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
