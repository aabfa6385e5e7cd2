"""Recorded commands of a discrete action that are none of its choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.choices import nearest_choice
from training.conversion.checks import Grid
from training.logs.log import note

Flags = NDArray[np.bool_]


def no_choice(contract: Contract, actions: NDArray[np.float64]) -> Flags:
    """Rows of `actions` (T, A) that are none of the contract's choices; false without any."""
    if contract.choices is None:
        return np.zeros(len(actions), bool)
    _, is_choice = nearest_choice(actions, contract.choices)
    return ~is_choice[:, 0]  # a discrete action is the only one


def note_choices(contract: Contract, grids: Sequence[Grid], findings: list[str]) -> None:
    """Says how many commands were none of the choices, and which ones."""
    actions = np.concatenate([grid.actions for grid in grids])
    strange = actions[no_choice(contract, actions) & np.isfinite(actions).all(axis=1)]
    if len(strange) and contract.choices is not None:
        values = np.unique(strange)
        shown = ", ".join(f"{value:g}" for value in values[:5])
        note(
            findings,
            f"action {contract.action_names[0]!r}: {len(strange)} of {len(actions)} commands are "
            f"none of its choices {contract.choices.tolist()} ({shown}"
            f"{', ...' if len(values) > 5 else ''}): those steps are dropped",
        )
