"""Commands then and now, side by side: figures and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.control.command import Command
from iql_ros.control.status import Status
from iql_ros.sampler import SECOND_NS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Replayed:
    """Ticks of a replay, T of them.

    Attributes:
        t_ns: instants, shape (T,).
        policy: what the controller would have published, shape (T, A); NaN where nothing.
        recorded: what the log's command topics held just before the next tick, shape (T, A);
            of a black box what was published.
        statuses: outcome of each tick.
        box: of a black box, how many decisions agree to the bit, and the first that does not.
    """

    t_ns: NDArray[np.int64]
    policy: Array
    recorded: Array
    statuses: tuple[str, ...]
    box: Mapping[str, Any] | None = None


def published(contract: Contract, command: Command | None) -> Array:
    """The command's action, shape (A,); NaN if nothing was published."""
    if command is None or not command.payloads:
        return np.full(contract.action_size, np.nan)
    return command.action


def compare(contract: Contract, replayed: Replayed) -> dict[str, dict[str, float]]:
    """By action component: both means, RMS difference and correlation, where both exist."""
    both = np.isfinite(replayed.policy).all(axis=1) & np.isfinite(replayed.recorded).all(axis=1)
    rows = {}
    for i, name in enumerate(contract.action_names):
        ours, theirs = replayed.policy[both, i], replayed.recorded[both, i]
        varied = len(ours) > 1 and ours.std() > 0 and theirs.std() > 0
        rows[name] = {
            "recorded_mean": float(theirs.mean()) if len(theirs) else math.nan,
            "policy_mean": float(ours.mean()) if len(ours) else math.nan,
            "rms_difference": float(np.sqrt(np.mean((ours - theirs) ** 2)))
            if len(ours)
            else math.nan,
            "correlation": float(np.corrcoef(ours, theirs)[0, 1]) if varied else math.nan,
        }
    return rows


def plot(contract: Contract, replayed: Replayed, title: str, path: Path) -> None:
    """Policy over record, one panel an action component; ticks that were not acted on shaded."""
    figure = Figure(figsize=(10, 1 + 2 * contract.action_size), layout="constrained")
    axes = figure.subplots(contract.action_size, 1, sharex=True, squeeze=False)[:, 0]
    t_s = (replayed.t_ns - replayed.t_ns[0]) / SECOND_NS
    refused = np.array([not Status(status).acts for status in replayed.statuses])
    for i, (axis, name) in enumerate(zip(axes, contract.action_names, strict=True)):
        low, high = contract.action_low[i], contract.action_high[i]
        axis.plot(t_s, replayed.recorded[:, i], color="0.55", label="recorded", drawstyle="steps")
        axis.plot(t_s, replayed.policy[:, i], color="C0", label="policy", drawstyle="steps")
        axis.axhline(low, color="C3", linewidth=0.7, linestyle=":")
        axis.axhline(high, color="C3", linewidth=0.7, linestyle=":", label="limits")
        axis.fill_between(
            t_s,
            0,
            1,
            where=refused,
            color="C1",
            alpha=0.25,
            transform=axis.get_xaxis_transform(),
            label="fallback",
        )
        axis.set_ylabel(name)
    axes[0].set_title(title)
    axes[0].legend(loc="upper right", ncols=4, fontsize="small")
    axes[-1].set_xlabel("time in the log, s")
    figure.savefig(path, dpi=110)
