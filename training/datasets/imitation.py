"""The .npz layout of the imitation library: read only.

Episodes lie one after another; each has one more row of `obs` than of `acts`, `indices`
are the rows of `acts` at which the second and later ones begin, `terminal` has one flag
an episode.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import DatasetError
from training.datasets.reading import as_actions, as_flags, as_floats
from training.datasets.table import Table, build_table

KEYS = ("obs", "acts", "rews", "indices", "terminal")


def read_imitation(src: Path, contract: Contract | None = None) -> Table:
    """Reads a file; `infos`, pickled objects, are left unread.

    Args:
        src: the file.
        contract: what its columns are; integer actions are numbers of its choices, from 0.

    Raises:
        DatasetError: naming file and key.
    """
    arrays = _load(src)
    acts = arrays["acts"]
    steps = len(acts)
    actions = as_actions(acts, "acts", src, rows=steps, contract=contract)
    bounds = np.concatenate([[0], arrays["indices"], [steps]]).astype(np.int64)
    lengths = np.diff(bounds)
    if not steps or (lengths <= 0).any():
        raise DatasetError(
            f"{src}: indices must rise from above 0 to below {steps}, the length of acts"
        )
    ended = as_flags(arrays["terminal"], "terminal", src, rows=len(lengths))
    seen = as_floats(arrays["obs"], "obs", src, rows=steps + len(lengths), wide=True)
    rows = np.arange(steps) + np.repeat(np.arange(len(lengths)), lengths)
    last = np.zeros(steps, np.bool_)
    last[bounds[1:] - 1] = True
    terminals = last & np.repeat(ended, lengths)
    columns = {
        "observations": seen[rows],
        "next_observations": seen[rows + 1],
        "actions": actions,
        "rewards": as_floats(arrays["rews"], "rews", src, rows=steps, wide=False),
        "terminals": terminals,
        "timeouts": last & ~terminals,
    }
    return build_table(src, columns, {}, contract=contract)


def _load(src: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(src, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DatasetError(
                    f"{src} lacks {', '.join(missing)}; it holds {', '.join(archive)}: "
                    f"is it a file of the imitation library?"
                )
            return {key: archive[key] for key in KEYS}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = "does not exist" if not src.exists() else f"is no readable .npz file: {error}"
        raise DatasetError(f"{src} {reason}") from error
