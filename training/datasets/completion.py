"""Fills what a plain D4RL file leaves out: timeouts and next observations.

D4RL files mark only terminals, or have no `next_observations`, or neither. Taking the row
that follows as the next observation is right only within an episode; across a reset it
teaches motion that no robot can make.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.datasets.mapped import parts


def complete(columns: dict[str, NDArray], findings: list[str]) -> dict[str, NDArray]:
    """Returns all columns, with timeouts and next observations inferred where absent.

    Each remedy is appended to `findings`.
    """
    observations, terminals = columns["observations"], columns["terminals"]
    following = columns.get("next_observations")
    timeouts = columns.get("timeouts")
    if following is not None:
        jumps = np.append(_differs(following[:-1], observations[1:]), False) & ~terminals
    if timeouts is None and following is not None:
        timeouts = jumps
        findings.append(
            f"no 'timeouts': episodes also end where next_observations is not the row that "
            f"follows, {int(jumps.sum())} place(s)"
        )
    elif timeouts is None:
        timeouts = np.zeros_like(terminals)
        findings.append(
            "neither 'timeouts' nor 'next_observations': only terminals end episodes, so a "
            "reset without one is learnt as if it were motion"
        )
    elif following is not None and (jumps & ~timeouts).any():
        findings.append(
            f"next_observations is not the row that follows at {int((jumps & ~timeouts).sum())} "
            f"row(s) within episodes, first {int(np.argmax(jumps & ~timeouts))}: are the "
            f"episodes marked rightly?"
        )
    if not (terminals[-1] or timeouts[-1]):
        timeouts = timeouts.copy()
        timeouts[-1] = True
        findings.append("the last row ends no episode: counted as a timeout")
    filled = {**columns, "timeouts": timeouts}
    if following is None:
        filled = _with_next_observations(filled, findings)
    return filled


def _differs(one: NDArray, other: NDArray) -> NDArray[np.bool_]:
    """Returns whether rows differ, (N,)."""
    differs = np.empty(len(one), dtype=bool)
    for start, part in parts(one):
        end = start + len(part)
        differs[start:end] = (part != other[start:end]).any(axis=1)
    return differs


def _with_next_observations(columns: dict[str, NDArray], findings: list[str]) -> dict[str, NDArray]:
    """Takes the row that follows; a timeout's successor was not recorded, so its row goes."""
    observations, terminals = columns["observations"], columns["terminals"]
    lost = columns["timeouts"] & ~terminals
    following = np.concatenate([observations[1:], observations[-1:]])
    following[terminals] = observations[terminals]  # never used: the mask of a terminal is 0
    # The row before a lost one is the new end of its episode.
    timeouts = columns["timeouts"].copy()
    timeouts[:-1] |= lost[1:] & ~terminals[:-1]
    findings.append(
        f"no 'next_observations': the row that follows is taken, and the {int(lost.sum())} "
        f"row(s) at a timeout, which have none, are dropped"
    )
    filled = {**columns, "timeouts": timeouts, "next_observations": following}
    return {name: array[~lost] for name, array in filled.items()}
