"""A dataset file as it lies on disk, for the tools that merge, split and translate files.

`training.datasets.dataset.Dataset` is what training sees: actions clipped, times and signals left
behind. A `Table` loses nothing, so that a file which passes through a tool keeps its bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from iql_ros import __version__
from iql_ros.contract import Contract
from iql_ros.errors import DatasetError
from training.datasets.completion import complete
from training.datasets.dataset import load_dataset, write_dataset
from training.datasets.file import COLUMNS, FORMAT, read_columns

Arrays = Mapping[str, NDArray[Any]]
Progress = Callable[[int, int], None]
"""Told how many are done, of how many."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Table:
    """Rows in time order. An episode ends at each row with a terminal or a timeout.

    Attributes:
        path: the file or folder it was read from.
        columns: the six of `dataset_file.COLUMNS`, N rows each, values as in the file.
        infos: further arrays of N rows by their path under `infos/`; always `source`
            (index into `sources`), never `episode` (it follows from the ends).
        sources: what the rows were made from; each with a name and a sha256.
        contract: None for data of other people.
        findings: what was amiss, and what was done about it.
    """

    path: Path
    columns: Arrays
    infos: Arrays
    sources: tuple[Mapping[str, Any], ...]
    contract: Contract | None = None
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in (*self.columns.values(), *self.infos.values()):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.columns["rewards"])

    @cached_property
    def episodes(self) -> list[slice]:
        """The rows of every episode, in order."""
        ends = np.flatnonzero(self.columns["terminals"] | self.columns["timeouts"]) + 1
        starts = [0, *ends[:-1].tolist()]
        return [slice(*rows) for rows in zip(starts, ends.tolist(), strict=True)]

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Returns these rows alone, with the sources that they need."""
        used, source = np.unique(self.infos["source"][rows], return_inverse=True)
        infos = {name: array[rows] for name, array in self.infos.items()}
        return replace(
            self,
            columns={name: array[rows] for name, array in self.columns.items()},
            infos={**infos, "source": source.astype(np.int32)},
            sources=tuple(self.sources[i] for i in used),
        )


def build_table(
    path: Path,
    columns: Arrays,
    infos: Arrays,
    *,
    contract: Contract | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    findings: Sequence[str] = (),
) -> Table:
    """Completes columns that lack timeouts or next observations, and names their origin.

    Args:
        path: where they were read; also their source if `sources` is empty.
        columns: of `COLUMNS`, at least the required ones.
        infos: arrays with as many rows, by name.
        contract: the rules they were made by, if known.
        sources: what `infos["source"]` counts.
        findings: what is already known to be amiss.

    Raises:
        DatasetError: no row is left, or the contract declares other widths.
    """
    if contract is not None:
        check_widths(path, columns, contract)
    known = {name: array for name, array in infos.items() if name != "episode"}
    if not sources or "source" not in known:
        sources = [{"name": path.name, "sha256": file_sha256(path)}]
        known["source"] = np.zeros(len(columns["rewards"]), np.int32)
    made: list[str] = []
    # Rows without a successor are dropped, so whatever belongs to a row goes through together.
    rows = complete({**columns, **{f"infos/{name}": a for name, a in known.items()}}, made)
    if not len(rows["rewards"]):
        raise DatasetError(f"{path} has no transition left: every episode is one step long")
    return Table(
        path=path,
        columns={name: rows[name] for name in COLUMNS},
        infos={name: rows[f"infos/{name}"] for name in known},
        sources=tuple(sources),
        contract=contract,
        findings=(*findings, *made),
    )


def check_widths(path: Path, columns: Arrays, contract: Contract) -> None:
    """Raises DatasetError if the contract declares more or fewer columns."""
    declared = {"observations": contract.observation_size, "actions": contract.action_size}
    for name, size in declared.items():
        if columns[name].shape[1] != size:
            raise DatasetError(
                f"{path}: '{name}' has {columns[name].shape[1]} columns, its contract "
                f"{contract.robot!r} declares {size}: export it anew"
            )


def read_table(path: Path) -> Table:
    """Reads a dataset of ours, or a plain D4RL file.

    Raises:
        DatasetError: as `load_dataset`, which checks it first.
    """
    contract = load_dataset(path).contract
    columns, attributes = read_columns(path)
    infos, findings = _infos(path, len(columns["rewards"]))
    _, sources = embedded(attributes, path)
    return build_table(path, columns, infos, contract=contract, sources=sources, findings=findings)


def write_table(table: Table, out: Path, *, force: bool = False) -> None:
    """Writes the table as a dataset file. Raises DatasetError if it exists, unless `force`."""
    lengths = [rows.stop - rows.start for rows in table.episodes]
    episode = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    attributes: dict[str, str | int] = {"format": FORMAT, "created_by": f"iql_ros {__version__}"}
    infos = {**table.infos, "episode": episode}
    write_dataset(
        out, table.columns, infos=infos, attributes=attributes | embed(table), force=force
    )


def embed(table: Table) -> dict[str, str]:
    """Contract and sources as text, for a place that other formats leave to their users."""
    texts = {"sources": json.dumps([dict(source) for source in table.sources], sort_keys=True)}
    if table.contract is not None:
        texts["contract"] = table.contract.canonical_json()
        texts["contract_digest"] = table.contract.digest()
    return texts


def embedded(
    texts: Mapping[str, Any], path: Path
) -> tuple[Contract | None, list[Mapping[str, Any]]]:
    """What `embed` wrote, or None and no source. Raises DatasetError if it was altered."""
    contract = Contract.from_json(str(texts["contract"])) if "contract" in texts else None
    if contract is not None and contract.digest() != texts.get("contract_digest"):
        raise DatasetError(
            f"{path}: contract_digest {texts.get('contract_digest')} is not that of the contract "
            f"embedded beside it, {contract.digest()}: the file was altered; export it anew"
        )
    try:
        sources = json.loads(str(texts.get("sources", "[]")))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}: 'sources' is no JSON ({error}): convert anew") from None
    return contract, sources


def join(
    parts: Sequence[Mapping[Key, NDArray[Any]]],
) -> tuple[dict[Key, NDArray[Any]], set[Key]]:
    """Concatenates arrays by name; returns them, and the names that some part lacks."""
    common = [name for name in parts[0] if all(name in part for part in parts)]
    lost = {name for part in parts for name in part} - set(common)
    return {name: np.concatenate([part[name] for part in parts]) for name in common}, lost


def check_new(out: Path, force: bool) -> None:
    """Raises DatasetError if `out` exists, unless `force`."""
    if out.exists() and not force:
        raise DatasetError(f"{out} exists and would be replaced: choose another path, or --force")


def quiet(done: int, total: int) -> None:
    """Shows no progress."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _infos(path: Path, rows: int) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Everything under `infos` that has one entry a row; the names of the rest as findings."""
    kept: dict[str, NDArray[Any]] = {}
    left: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.shape and item.shape[0] == rows and item.dtype.kind in "biuf":
                kept[name] = item[()]
            else:
                left.append(f"infos/{name} {item.dtype}{item.shape}")

    with h5py.File(path) as file:
        if isinstance(file.get("infos"), h5py.Group):
            file["infos"].visititems(visit)
    told = f"left out, not numbers with one entry a row: {', '.join(left)}"
    return kept, [told] if left else []
