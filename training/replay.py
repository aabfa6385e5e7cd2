"""What would the policy have done? A log's messages through the controller, tick by tick."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iql_ros.bundle import load_bundle
from iql_ros.contract import Contract
from iql_ros.controller import Command, Controller, Policy
from iql_ros.errors import BundleError
from iql_ros.fields import FieldPlan
from iql_ros.policies import open_policy
from iql_ros.sampler import SECOND_NS, tick_offset
from iql_ros.wire import Encoding, make_types
from training.conversion.steps import commands
from training.conversion.topics import read_topics
from training.logs import Log, open_log

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Replayed:
    """Ticks of a replay, T of them.

    Attributes:
        t_ns: instants, shape (T,).
        policy: what the controller would have published, shape (T, A); NaN where nothing.
        recorded: what the log's command topics held just before the next tick, shape (T, A).
        statuses: outcome of each tick.
    """

    t_ns: NDArray[np.int64]
    policy: Array
    recorded: Array
    statuses: tuple[str, ...]


def replay(bundle_path: Path, log_path: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Replays a log through a bundle's controller; writes `replay.png`, `.npz` and `.json`.

    Args:
        bundle_path: folder of a bundle.
        log_path: a log with the contract's topics.
        out: folder to write.
        force: replace it.

    Returns:
        The content of `replay.json`: by action component, how policy and record compare.
    """
    if out.exists() and not force:
        raise BundleError(f"{out} exists: choose another --out or pass --force")
    bundle = load_bundle(bundle_path)
    replayed = run_log(bundle.contract, open_policy(bundle).policy, open_log(log_path))
    summary = {
        "bundle": bundle.digest,
        "log": log_path.name,
        "ticks": len(replayed.t_ns),
        "statuses": dict(Counter(replayed.statuses)),
        "actions": compare(bundle.contract, replayed),
    }
    draft = out.with_name(f".{out.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    np.savez(
        draft / "replay.npz",
        t_ns=replayed.t_ns,
        policy=replayed.policy,
        recorded=replayed.recorded,
        statuses=np.array(replayed.statuses),
    )
    (draft / "replay.json").write_text(json.dumps(summary, indent=2) + "\n")
    _plot(bundle.contract, replayed, f"{bundle_path.name} on {log_path.name}", draft / "replay.png")
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return summary


def run_log(contract: Contract, policy: Policy, log: Log) -> Replayed:
    """Feeds a log to a fresh controller, ticking as the contract says."""
    aliases = contract.inputs(signals=False)
    known = [
        log.topics[contract.topics[a].absolute]
        for a in aliases
        if contract.topics[a].absolute in log.topics
    ]
    encoding = cast(Encoding, known[0].encoding if known else "cdr")
    embedded = {topic.msgtype: topic.definition for topic in known if topic.definition}
    definitions = {**contract.definitions, **embedded}
    controller = Controller(
        contract,
        policy,
        make_types(contract.definitions),
        source=(make_types(definitions, ros1=encoding == "ros1"), encoding),
    )
    messages = read_topics(log, contract, FieldPlan(contract, [*contract.fields]))
    decided = list(_drive(controller, _arrivals(log, contract)))
    t_ns = np.array([command.t_ns for command in decided], np.int64)
    proposed = [c.action if c.payloads else np.full(contract.action_size, np.nan) for c in decided]
    until = np.concatenate([t_ns[1:], t_ns[-1:] + 1])
    recorded, _ = commands(contract, messages, until)
    return Replayed(t_ns, np.array(proposed), recorded, tuple(c.status.value for c in decided))


def _arrivals(log: Log, contract: Contract) -> list[tuple[int, str, bytes]]:
    """Messages of the policy's topics as (arrival in ns, alias, payload), in order of arrival."""
    aliases = contract.inputs(signals=False)
    arrivals = [
        (int(t_ns), alias, bytes(block.payloads[i]))
        for block in log.blocks({contract.topics[alias].absolute for alias in aliases})
        for i, t_ns in enumerate(block.t_ns)
        for alias in aliases
        if contract.topics[alias].absolute == block.topic
    ]
    return sorted(arrivals, key=lambda arrival: arrival[0])


def _drive(controller: Controller, arrivals: Sequence[tuple[int, str, bytes]]) -> Iterator[Command]:
    """Ticks at every n-th message of the trigger, or at the rate from the first full view on."""
    rate_hz = controller.contract.tick.rate_hz
    missing = set(controller.inputs)
    start_ns, k = 0, 0
    for t_ns, alias, payload in arrivals:
        if rate_hz is not None and not missing:
            while (tick_ns := start_ns + tick_offset(k, rate_hz)) < t_ns:
                yield controller.tick(tick_ns)
                k += 1
        if controller.put(alias, t_ns, payload):
            yield controller.tick(t_ns)
        if alias in missing:
            missing.remove(alias)
            start_ns = t_ns
    if rate_hz is not None and not missing:
        yield controller.tick(start_ns + tick_offset(k, rate_hz))


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


def _plot(contract: Contract, replayed: Replayed, title: str, path: Path) -> None:
    """Policy over record, one panel an action component; ticks that were not acted on shaded."""
    figure = Figure(figsize=(10, 1 + 2 * contract.action_size), layout="constrained")
    axes = figure.subplots(contract.action_size, 1, sharex=True, squeeze=False)[:, 0]
    t_s = (replayed.t_ns - replayed.t_ns[0]) / SECOND_NS
    refused = np.array([status not in ("ok", "limited") for status in replayed.statuses])
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
            label="safe action",
        )
        axis.set_ylabel(name)
    axes[0].set_title(title)
    axes[0].legend(loc="upper right", ncols=4, fontsize="small")
    axes[-1].set_xlabel("time in the log, s")
    figure.savefig(path, dpi=110)
