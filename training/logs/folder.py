"""A rosbag2 folder: its storage files in order of time, whatever metadata.yaml says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import yaml

from iql_ros.errors import LogError
from training.logs.log import Block, Log, Topic, admit, note

SUFFIXES = (".mcap", ".mcap.zstd", ".db3", ".db3.zstd", ".bag")


def storage_files(folder: Path) -> list[Path]:
    """The files in a folder that are named like storage, in natural order: a_2 before a_10.

    Of a file that lies there both plain and compressed, only the plain one.
    """
    names = {file.name for file in folder.iterdir() if file.is_file()}
    plain = [name for name in names if name.removesuffix(".zstd") == name or name[:-5] not in names]
    files = [folder / name for name in plain if name.endswith(SUFFIXES)]
    return sorted(
        files, key=lambda file: [_natural(part) for part in re.split(r"(\d+)", file.name)]
    )


def _natural(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


def is_bag_folder(folder: Path) -> bool:
    """Whether a folder is one rosbag2 log, by its metadata.yaml or by the names of its files.

    rosbag2 names the splits after the folder: walk/walk_0.mcap, walk/walk_1.mcap. Files with
    other names may well be logs of their own.
    """
    if (folder / "metadata.yaml").is_file():
        return True
    name = re.compile(re.escape(folder.name) + r"_\d+\.(mcap|db3)(\.zstd)?")
    files = storage_files(folder)
    return len(files) > 0 and all(name.fullmatch(file.name) for file in files)


def open_folder(folder: Path, open_file: Callable[[Path], Log]) -> Log:
    """Opens all files of a rosbag2 folder as one log.

    Raises:
        LogError: there is no storage file, or none of them can be read.
    """
    findings: list[str] = []
    files = _listed_files(folder, findings)
    if not files:
        raise LogError(f"{folder}: a bag folder without a .mcap or .db3 file: was it copied whole?")
    parts: list[Log] = []
    errors: list[str] = []
    for file in files:
        try:
            parts.append(open_file(file))
        except LogError as error:
            errors.append(str(error))
    if not parts:
        raise LogError(errors[0] if len(errors) == 1 else f"{folder}: {'; '.join(errors)}")
    findings += [f"left out: {error}" for error in errors]
    return _merged(folder, parts, findings)


def _listed_files(folder: Path, findings: list[str]) -> list[Path]:
    """The folder's files; what metadata.yaml names otherwise is only worth a finding."""
    present = [file for file in storage_files(folder) if not file.name.endswith(".bag")]
    metadata = folder / "metadata.yaml"
    if not metadata.is_file():
        note(findings, "there is no metadata.yaml: all files of the folder were taken")
        return present
    try:
        told = yaml.safe_load(metadata.read_text())["rosbag2_bagfile_information"]
        names = [Path(str(path)).name for path in told["relative_file_paths"]]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, RecursionError):
        note(findings, "metadata.yaml cannot be read: all files of the folder were taken")
        return present
    by_name = {file.name: file for file in present}
    listed = [name if name in by_name else f"{name}.zstd" for name in names]
    if missing := [name for name, at in zip(names, listed, strict=True) if at not in by_name]:
        note(findings, f"metadata.yaml names {missing[0]}, which is not there: renamed, or lost")
    if extra := [file.name for file in present if file.name not in listed]:
        note(findings, f"metadata.yaml does not name {extra[0]}: taken as well")
    first = [by_name[name] for name in dict.fromkeys(listed) if name in by_name]
    return first + [file for file in present if file not in first]


def _merged(folder: Path, parts: list[Log], findings: list[str]) -> Log:
    if all(part.start_ns is not None for part in parts):
        parts = sorted(parts, key=lambda part: part.start_ns or 0)
    topics: dict[str, Topic] = {}
    readable: list[tuple[Log, set[str]]] = []
    for part in parts:
        _prefix(part, findings)
        readable.append((part, set()))
        for topic in part.topics.values():
            known = topics.get(topic.name)
            if admit(topic, topics, findings):
                readable[-1][1].add(topic.name)
                topics[topic.name] = _sum(known, topic) if known else topic
    for before, after in pairwise(parts):
        if before.end_ns is not None and after.start_ns is not None:
            overlap = before.end_ns - after.start_ns
            if overlap > 0:
                note(
                    findings,
                    f"{before.path.name} and {after.path.name} overlap by {overlap / 1e9:.3f} s",
                )
    starts = [part.start_ns for part in parts if part.start_ns is not None]
    ends = [part.end_ns for part in parts if part.end_ns is not None]
    return Log(
        folder,
        topics,
        findings,
        min(starts) if len(starts) == len(parts) else None,
        max(ends) if len(ends) == len(parts) else None,
        partial(_read, readable, findings),
    )


def _sum(known: Topic, more: Topic) -> Topic:
    """A topic of two files; its count is known only if both are."""
    count = None if known.count is None or more.count is None else known.count + more.count
    return replace(known, count=count, definition=known.definition or more.definition)


def _read(
    parts: list[tuple[Log, set[str]]], findings: list[str], wanted: Collection[str]
) -> Iterator[Block]:
    for part, names in parts:
        yield from part.read(names.intersection(wanted))
        _prefix(part, findings)


def _prefix(part: Log, findings: list[str]) -> None:
    for text in part.findings:
        note(findings, f"{part.path.name}: {text}")
