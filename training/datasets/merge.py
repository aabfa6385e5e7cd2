"""Puts dataset files together, if they mean the same and no log is in them twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import first_difference
from iql_ros.errors import DatasetError
from training.datasets.table import Progress, Table, check_new, join, quiet, read_table, write_table


def merge(
    paths: Sequence[Path], out: Path, *, force: bool = False, progress: Progress = quiet
) -> list[str]:
    """Puts datasets one after another, in the order given.

    Args:
        paths: two or more files.
        out: file to write.
        force: overwrite it.
        progress: called with files read and in all.

    Returns:
        What a user should know about the result.

    Raises:
        DatasetError: contracts or widths differ, or an episode is in two of the files.
    """
    if len(paths) < 2:
        raise DatasetError(f"{len(paths)} file(s) given, merging needs at least two")
    check_new(out, force)
    tables: list[Table] = []
    findings: list[str] = []
    met: dict[str, tuple[Path, str]] = {}
    for path in paths:
        table = read_table(path)
        if tables:
            _check_alike(tables[0], table)
        _check_not_repeated(table, met)
        findings += [f"{path.name}: {finding}" for finding in table.findings]
        tables.append(table)
        progress(len(tables), len(paths))
    columns, _ = join([table.columns for table in tables])
    sources, numbered = _common_sources(tables)
    widths = [{(n, a.shape[1:]): a for n, a in infos.items()} for infos in numbered]
    infos, lost = join(widths)
    if lost:
        names = ", ".join(sorted({name for name, _ in lost}))
        findings.append(f"left out, not in every file or not of one width: infos/{names}")
    merged = replace(
        tables[0],
        columns=columns,
        infos={name: array for (name, _), array in infos.items()},
        sources=tuple(sources),
    )
    write_table(merged, out, force=force)
    return findings


def _check_alike(first: Table, other: Table) -> None:
    """Raises DatasetError unless rows of both mean the same."""
    pair = f"{first.path} and {other.path}"
    if first.contract is not None and other.contract is not None:
        differs = first_difference(first.contract, other.contract)
        if differs is not None:
            raise DatasetError(
                f"contracts of {pair} differ in {differs}: convert the logs of one of them anew"
            )
    elif first.contract is not other.contract:
        bare = first if first.contract is None else other
        raise DatasetError(
            f"{bare.path} has no contract, so nothing says that its columns mean what those of "
            f"the other file do: convert its logs with the contract, or export both to d4rl"
        )
    for name in ("observations", "actions"):
        widths = first.columns[name].shape[1], other.columns[name].shape[1]
        if widths[0] != widths[1]:
            raise DatasetError(f"'{name}' of {pair} have {widths[0]} and {widths[1]} columns")


def _check_not_repeated(table: Table, met: dict[str, tuple[Path, str]]) -> None:
    """Raises DatasetError if an episode of the same source and content was met in another file.

    Halves of one log, as `split` makes them, share a source but no episode.
    """
    repeated: list[tuple[Path, str]] = []
    own: dict[str, tuple[Path, str]] = {}
    for rows in table.episodes:
        source = table.sources[int(table.infos["source"][rows.start])]
        digest = hashlib.sha256(_identity(source).encode())
        for name in ("observations", "actions", "rewards"):
            digest.update(np.ascontiguousarray(table.columns[name][rows]).data)
        if "t_ns" in table.infos:
            digest.update(np.ascontiguousarray(table.infos["t_ns"][rows]).data)
        own[digest.hexdigest()] = (table.path, str(source.get("name", "?")))
        if digest.hexdigest() in met:
            repeated.append(met[digest.hexdigest()])
    if repeated:
        where, name = repeated[0]
        raise DatasetError(
            f"{table.path}: {len(repeated)} of its {len(table.episodes)} episode(s) are in "
            f"{where} too, from the same source {name!r}: give every log once"
        )
    met.update(own)


def _common_sources(
    tables: Sequence[Table],
) -> tuple[list[Mapping[str, Any]], list[dict[str, NDArray[Any]]]]:
    """All sources, each once, and the infos of every table with `source` counting those."""
    sources: dict[str, Mapping[str, Any]] = {}
    numbered: list[dict[str, NDArray[Any]]] = []
    for table in tables:
        for source in table.sources:
            sources.setdefault(_identity(source), source)
        place = {key: i for i, key in enumerate(sources)}
        numbers = np.array([place[_identity(s)] for s in table.sources], np.int32)
        numbered.append({**table.infos, "source": numbers[table.infos["source"]]})
    return list(sources.values()), numbered


def _identity(source: Mapping[str, Any]) -> str:
    return str(source.get("sha256") or json.dumps(dict(source), sort_keys=True))
