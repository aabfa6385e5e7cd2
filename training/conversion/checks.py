"""What the grid reveals about a log: ages, pauses, silences, NaNs, flips and shifted actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.schema import Field
from iql_ros.finite import fits_float32
from iql_ros.sampler import SECOND_NS, Messages, Resampled, Times, hold, max_age_ns
from training.conversion.alignment import Response, responses
from training.logs.log import note

Array = NDArray[np.float64]
Facts = dict[str, int | float]

SPARSE = 10
"""Commands rarer than one in so many instants are worth a sentence."""
COARSE = 10
"""What varies by less than so many of float32's steps is coarse in the policy's eyes."""


@dataclass(frozen=True)
class Grid:
    """One segment of a log on its grid of T instants.

    Attributes:
        topics: by alias, as they take effect.
        sampled: fields at the instants.
        actions: of the steps between them, shape (T - 1, A).
        keep: which steps were kept, shape (T - 1,).
    """

    topics: Mapping[str, Messages]
    sampled: Resampled
    actions: Array
    keep: NDArray[np.bool_]


def check_topics(contract: Contract, grids: Sequence[Grid], findings: list[str]) -> Facts:
    """Rate, largest gap and ages at the used instants of every topic, `<what>_<alias>`.

    Args:
        contract: the rules.
        grids: one a segment.
        findings: takes sentences on pauses and silences.
    """
    facts: Facts = {}
    inputs = contract.inputs(signals=True)
    for alias in dict.fromkeys((*inputs, *contract.outputs)):
        arrivals = [grid.topics[alias].arrival_ns for grid in grids]
        span_s = sum(float(np.ptp(t)) for t in arrivals if len(t)) / SECOND_NS
        intervals = sum(len(t) - 1 for t in arrivals if len(t))
        facts[f"rate_hz_{alias}"] = intervals / span_s if span_s else 0.0
        gaps = [_intervals(grid, alias) for grid in grids]
        facts[f"largest_gap_s_{alias}"] = max(float(g.max(initial=0)) for g in gaps) / SECOND_NS
        ages_s = np.concatenate([_ages_s(grid, alias, alias in inputs) for grid in grids])
        if len(ages_s):
            p50, p95 = np.quantile(ages_s, [0.5, 0.95])
            facts[f"age_p50_s_{alias}"] = float(p50)
            facts[f"age_p95_s_{alias}"] = float(p95)
            facts[f"age_max_s_{alias}"] = float(ages_s.max())
        if alias in inputs:
            _note_pauses(contract, alias, grids, gaps, findings)
        if alias in contract.outputs:
            _note_silence(contract, alias, grids, findings, facts)
    return facts


def check_fields(contract: Contract, grids: Sequence[Grid], findings: list[str]) -> None:
    """Says which fields were not finite, which quaternions flip, and which actions are shifted."""
    for name, field in contract.fields.items():
        if field.topic is not None:
            _note_nonfinite(contract, name, grids, findings)
    for field in contract.observations:
        _note_float32(contract, field.name, grids, findings)
        if _is_quaternion(contract, field):
            _note_flips(contract, field.name, grids, findings)
    longest = max(grids, key=lambda grid: len(grid.keep))
    for found in _responses(contract, longest):
        note(findings, found)


def _intervals(grid: Grid, alias: str) -> Times:
    """Time between messages within the grid, the silence up to its end included, in ns."""
    t_ns = grid.sampled.t_ns
    if not len(t_ns):
        return np.zeros(0, np.int64)
    arrival = grid.topics[alias].arrival_ns
    first = max(0, int(np.searchsorted(arrival, t_ns[0], side="right")) - 1)
    last = int(np.searchsorted(arrival, t_ns[-1], side="right"))
    return np.diff(np.concatenate([arrival[first:last], t_ns[-1:]]))


def _ages_s(grid: Grid, alias: str, is_input: bool) -> Array:
    """Age of the message that each kept step used, in s."""
    if not is_input:
        held = hold(grid.topics[alias], grid.sampled.t_ns[1:][grid.keep], before=True)
        return held.age_ns / SECOND_NS
    ages_s = grid.sampled.ages_s.get(alias)  # None: a trigger that no field reads
    return np.zeros(0) if ages_s is None else ages_s[:-1][grid.keep]


def _note_pauses(
    contract: Contract,
    alias: str,
    grids: Sequence[Grid],
    gaps: Sequence[Times],
    findings: list[str],
) -> None:
    limit_ns = max_age_ns(contract, alias)
    pauses = sum(int((g > limit_ns).sum()) for g in gaps)
    if not pauses:
        return
    stale = sum(grid.sampled.stale.get(alias, 0) for grid in grids)
    largest = max(int(g.max(initial=0)) for g in gaps)
    note(
        findings,
        f"{contract.topics[alias].absolute} paused {pauses} times for longer than its max_age_s "
        f"of {limit_ns / SECOND_NS:g} s, at most {largest / SECOND_NS:.2f} s: {stale} instants "
        "could not be used, nothing was filled in",
    )


def _note_silence(
    contract: Contract, alias: str, grids: Sequence[Grid], findings: list[str], facts: Facts
) -> None:
    topic = contract.topics[alias]
    steps = sum(len(grid.keep) for grid in grids)
    count = sum(len(grid.topics[alias].rows) for grid in grids)
    rule = "each holds until the next"
    if topic.command_timeout_s is not None:
        limit_ns = round(topic.command_timeout_s * SECOND_NS)
        ages = [hold(g.topics[alias], g.sampled.t_ns[1:], before=True).age_ns for g in grids]
        silent = sum(int((age > limit_ns).sum()) for age in ages)
        facts[f"silent_{alias}"] = silent
        does = {"hold": "it holds on", "zero": "it counts as zero", "break": "the episode ends"}
        rule = (
            f"after {topic.command_timeout_s:g} s without a new one {does[topic.on_silence]} "
            f"(on_silence: {topic.on_silence}; {silent} of {steps} steps)"
        )
    if count * SPARSE < steps:
        span_s = sum(float(np.ptp(g.sampled.t_ns)) for g in grids if len(g.sampled.t_ns))
        note(
            findings,
            f"{topic.absolute}: only {count} commands in {span_s / SECOND_NS:.0f} s: {rule}",
        )


def _note_nonfinite(
    contract: Contract, name: str, grids: Sequence[Grid], findings: list[str]
) -> None:
    count = sum(grid.sampled.nonfinite.get(name, 0) for grid in grids)
    if not count:
        return
    for grid in grids:
        bad = np.flatnonzero(~np.isfinite(grid.sampled.fields[name]).all(axis=1))
        if len(bad):
            first_s = (grid.sampled.t_ns[bad[0]] - grid.sampled.t_ns[0]) / SECOND_NS
            break
    note(
        findings,
        f"field {name!r} was NaN or infinite at {count} instants, first {first_s:.2f} s after the "
        "first instant: each ends an episode (on_nonfinite: break)",
    )


def _note_float32(
    contract: Contract, name: str, grids: Sequence[Grid], findings: list[str]
) -> None:
    """Says what of an observation is lost in float32, in which the policy sees it."""
    values = np.concatenate([grid.sampled.fields[name] for grid in grids])
    finite = np.isfinite(values).all(axis=1)
    fits = fits_float32(values)
    beyond = values[finite & ~fits]
    if len(beyond):
        note(
            findings,
            f"observation {name!r} was finite, but beyond float32, in which the policy sees it, at "
            f"{len(beyond)} instants (up to {np.abs(beyond).max():.3g}): each ends an episode",
        )
    seen = values[fits]
    if not len(seen):
        return
    largest = np.abs(seen).max(axis=0)
    steps, rounding = np.spacing(largest.astype(np.float32)), 1e3 * np.spacing(largest)
    columns = zip(contract.components(name), seen.std(axis=0), rounding, steps, strict=True)
    for component, varies, least, step in columns:
        if least < varies < COARSE * step:
            note(
                findings,
                f"observation {component!r} varies by {varies:.2g} (one standard deviation), but "
                f"float32, in which the policy sees it, has steps of {step:.2g} there: observe its "
                "difference to something near (derive: difference)",
            )


def _is_quaternion(contract: Contract, field: Field) -> bool:
    if field.path is None:
        return False
    labels = [c.removeprefix(f"{field.name}_") for c in contract.components(field.name)]
    return sorted(labels) == ["w", "x", "y", "z"]


def _note_flips(contract: Contract, name: str, grids: Sequence[Grid], findings: list[str]) -> None:
    flips = steps = 0
    for grid in grids:
        q = grid.sampled.fields[name]
        dots = (q[1:] * q[:-1]).sum(axis=1)[grid.keep]
        flips += int((dots < 0).sum())
        steps += len(dots)
    if flips:
        note(
            findings,
            f"observation {name!r} changes the sign of its quaternion in {flips} of {steps} steps, "
            "though q and -q are one rotation: observe rot6d of it (derive: rot6d), and make the "
            "quaternion a signal",
        )


def _responses(contract: Contract, grid: Grid) -> list[str]:
    """A sentence for each action that seems to be recorded too late or too early."""
    # Memories lag by themselves, and a quaternion's components turn with where it points.
    fields = [
        field
        for field in contract.fields.values()
        if (field.topic is not None or field.derive is not None)
        and not _is_quaternion(contract, field)
    ]
    if not fields:
        return []
    names = [component for field in fields for component in contract.components(field.name)]
    states = np.concatenate([grid.sampled.fields[field.name] for field in fields], axis=1)
    return [
        _shifted(contract.action_names[found.action], names[found.state], found)
        for found in responses(grid.actions, states, grid.keep)
        if found.is_shifted
    ]


def _shifted(action: str, state: str, found: Response) -> str:
    steps = f"{abs(found.lag)} step{'s' if abs(found.lag) > 1 else ''}"
    text = (
        f"action {action!r} goes best with the change of {state!r} {steps} "
        f"{'EARLIER' if found.lag < 0 else 'later'} (correlation {found.correlation:.2f}, in its "
        f"own step or the next {found.expected:.2f}): "
    )
    if found.lag < 0:
        return text + "is the command recorded late, or is it an echo of the measured motion?"
    return text + "the robot answers late, or the command is stamped early: see history_of"
