"""Takes dataset files apart and translates them from and to other layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from iql_ros.contract import Contract, require_same
from iql_ros.errors import DatasetError
from training.datasets.dataset import load_dataset
from training.datasets.facts import suspect_ends
from training.datasets.imitation import read_imitation
from training.datasets.minari import read_minari, write_minari
from training.datasets.robomimic import read_robomimic, write_robomimic
from training.datasets.table import (
    Progress,
    Table,
    check_new,
    check_widths,
    quiet,
    read_table,
    write_table,
)

IMPORTS = ("d4rl", "minari", "robomimic", "imitation")
EXPORTS = ("d4rl", "minari", "robomimic")


def split(
    path: Path, fraction: float, seed: int, out_a: Path, out_b: Path, *, force: bool = False
) -> tuple[int, int]:
    """Splits whole episodes at random, as training holds them out.

    Args:
        path: what to split.
        fraction: share of the episodes that goes to `out_b`, rounded, at least one.
        seed: decides which.
        out_a, out_b: files to write.
        force: overwrite them.

    Returns:
        Episodes in `out_a` and in `out_b`.

    Raises:
        DatasetError: one of the two would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise DatasetError(f"fraction is {fraction:g}, must lie between 0 and 1")
    if out_a.resolve() == out_b.resolve():
        raise DatasetError(f"both halves would be written to {out_a}: give two names")
    for out in (out_a, out_b):
        check_new(out, force)
    table = read_table(path)
    count = len(table.episodes)
    taken = max(1, round(fraction * count))
    if taken >= count:
        raise DatasetError(
            f"{path} has {count} episode(s), fraction {fraction:g} would take {taken} and leave "
            f"none: choose a smaller fraction"
        )
    order = np.random.default_rng(seed).permutation(count)
    for out, episodes in ((out_a, order[taken:]), (out_b, order[:taken])):
        spans = [table.episodes[i] for i in np.sort(episodes)]
        rows = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        write_table(table.take(rows), out, force=force)
    return count - taken, taken


def import_dataset(
    layout: str,
    src: Path,
    out: Path,
    *,
    keys: Sequence[str] = (),
    time_limit: int | None = None,
    contract: Contract | None = None,
    force: bool = False,
    progress: Progress = quiet,
) -> list[str]:
    """Translates a file of another layout into a dataset of ours.

    Args:
        layout: one of `IMPORTS`.
        src: a file, or Minari's folder.
        out: file to write.
        keys: robomimic's observation keys, in order; other layouts have none.
        contract: what the columns are, for data that comes without one. A bundle needs it.
        time_limit: a terminal that ends an episode of exactly so many steps is a timeout.
        force: overwrite `out`.
        progress: called with episodes read and in all.

    Returns:
        What was amiss, what was decided, and what training will say of the result.

    Raises:
        DatasetError: naming file and key.
    """
    _check_apart(src, out)
    check_new(out, force)
    if keys and layout != "robomimic":
        raise DatasetError(f"layout {layout!r} has one observation array, so no keys to choose")
    match layout:
        case "d4rl":
            table = read_table(src)
        case "minari":
            table = read_minari(src, progress, contract)
        case "robomimic":
            table = read_robomimic(src, progress, keys)
        case "imitation":
            table = read_imitation(src, contract)
        case _:
            raise DatasetError(f"layout {layout!r} is none of {', '.join(IMPORTS)}")
    if contract is not None:
        table = _described(table, contract)
    if time_limit is not None:
        table = _timed_out(table, time_limit)
    write_table(table, out, force=force)
    return [*table.findings, *suspect_ends(table), *load_dataset(out).findings]


def export_dataset(
    layout: str, src: Path, out: Path, *, force: bool = False, progress: Progress = quiet
) -> list[str]:
    """Translates a dataset of ours into another layout.

    Args:
        layout: one of `EXPORTS`. D4RL's holds all that ours does.
        src: a dataset of ours, or a plain D4RL file.
        out: file to write, or Minari's folder.
        force: overwrite it.
        progress: called with episodes written and in all.

    Returns:
        What was amiss, and what the layout cannot hold.
    """
    _check_apart(src, out)
    check_new(out, force)
    table = read_table(src)
    match layout:
        case "d4rl":
            write_table(table, out, force=force)
            told: list[str] = []
        case "minari":
            told = write_minari(table, out, force=force, progress=progress)
        case "robomimic":
            told = write_robomimic(table, out, force=force, progress=progress)
        case _:
            raise DatasetError(f"layout {layout!r} is none of {', '.join(EXPORTS)}")
    return [*table.findings, *told]


def _timed_out(table: Table, limit: int) -> Table:
    """Turns terminals into timeouts where an episode is `limit` steps long."""
    ends = [rows.stop - 1 for rows in table.episodes if rows.stop - rows.start == limit]
    terminals, timeouts = table.columns["terminals"].copy(), table.columns["timeouts"].copy()
    turned = int(terminals[ends].sum())
    terminals[ends], timeouts[ends] = False, True
    return replace(
        table,
        columns={**table.columns, "terminals": terminals, "timeouts": timeouts},
        findings=(*table.findings, f"{turned} terminal(s) after {limit} steps: now timeouts"),
    )


def _described(table: Table, contract: Contract) -> Table:
    """The table as data of `contract`; one that it came with must be the same."""
    if table.contract is not None:
        require_same(contract, table.contract, str(table.path))
    check_widths(table.path, table.columns, contract)
    return replace(table, contract=contract)


def _check_apart(src: Path, out: Path) -> None:
    if src.resolve() == out.resolve():
        raise DatasetError(f"{out} would replace what it is made from: choose another path")
