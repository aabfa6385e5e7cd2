"""Warnings about single actions and observations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.report.words import number, share, some, times

Report = Mapping[str, Any]
Component = Mapping[str, Any]

IDLE_SHARE = 0.5
OUTSIDE_SHARE = 0.001
PILE_SHARE = 0.05
"""Of the samples at one value."""
PILE_VISITS = 4
"""A robot may rest once where its range ends; a clipped signal comes back there."""
CONTINUOUS = 50
"""Distinct values from which a signal counts as continuous, so that a pile-up is no habit."""


def component_warnings(report: Report) -> Iterator[str]:
    """Yields what is odd about actions, then observations, then how they move."""
    for rule in (_actions, _observations, _piled, _motion):
        yield from rule(report)


def _actions(report: Report) -> Iterator[str]:
    actions = _role(report, "action")
    unused = [c for c in actions if c.get("distinct") == 1]
    if unused:
        yield (
            f"Never used: {some(_named_value(c) for c in unused)}. Nothing can be learnt about "
            f"an action that never varies: leave it out of the contract (topic constants can "
            f"publish it), or add logs that use it."
        )
    yield from _outside(report, actions, "what the robot was told then, the node will never send")
    if report["idle_steps"] > IDLE_SHARE * report["steps"]:
        yield (
            f"{share(report['idle_steps'], report['steps'])} of the steps command exactly the "
            f"safe action: the policy will learn to stand still; cut the idle time from the logs, "
            f"or let command_timeout_s with on_silence: break do it."
        )


def _observations(report: Report) -> Iterator[str]:
    observations = _role(report, "observation")
    constant = [c for c in observations if c.get("distinct") == 1]
    if constant:
        yield (
            f"Constant in the whole dataset: {some(_named_value(c) for c in constant)}. A policy "
            f"has never seen another value and will be lost at the first: leave the field out, or "
            f"check its path and sensor."
        )
    missing = [c for c in observations if c["missing"]]
    if missing:
        yield (
            f"NaN or infinity in {some(_counted(report, c, c['missing']) for c in missing)}: "
            f"training will refuse them; use on_nonfinite: hold, or leave the field out."
        )
    yield from _outside(report, observations, "on the robot such values are outside what is known")


def _outside(report: Report, components: Sequence[Component], meaning: str) -> Iterator[str]:
    out = [c for c in components if c.get("outside", 0) > OUTSIDE_SHARE * report["steps"]]
    if out:
        yield (
            f"Outside the limits: {some(_counted(report, c, c['outside']) for c in out)}: "
            f"{meaning}; widen the contract's limits if the values are right, else look for a "
            f"wrong unit, path or element."
        )


def _piled(report: Report) -> Iterator[str]:
    piled = [
        f"{c['name']} ({share(c[f'at_{end}'], report['steps'])} at {number(c[end])})"
        for c in report["components"]
        if c["role"] == "action" or (c["role"] == "observation" and c["read"])
        if c.get("distinct", 0) >= CONTINUOUS
        for end in ("min", "max")
        if c[end] != 0 and c[f"at_{end}"] > PILE_SHARE * report["steps"]
        if c[f"visits_{end}"] >= PILE_VISITS
    ]
    if piled:
        yield (
            f"Piled up at the extreme value, as if clipped: {some(piled)}. If a driver or sensor "
            f"saturates there, the true value is lost: raise its range, or accept that the policy "
            f"cannot tell how far beyond it is."
        )


def _motion(report: Report) -> Iterator[str]:
    read = [c for c in _role(report, "observation") if c["read"]]
    frozen = [c for c in read if c["frozen"]]
    step_s = 1 / report["timing"]["rate_hz"] if report["timing"]["rate_hz"] else 0.0
    if frozen:
        names = some(
            f"{c['name']} ({times(c['frozen']['stretches'])}, the longest "
            f"{number(c['frozen']['longest'] * step_s)} s from row {c['frozen']['row']})"
            for c in frozen
        )
        yield (
            f"Frozen while the robot was driven and other signals moved: {names}. If the sensor or "
            f"its driver hung, cut that part out of the log."
        )
    turns, flips, leaps = (
        [c for c in read if c["jumps"] and c["jumps"]["kind"] == kind]
        for kind in ("turn", "flip", "leap")
    )
    if turns:
        yield (
            f"An angle that wraps around: {some(c['name'] for c in turns)}. The policy sees a "
            f"leap where nothing happened: observe it through derive: sincos, and keep the angle "
            f"itself among the signals."
        )
    if flips:
        yield (
            f"A rotation that changes its sign: {some(c['name'] for c in flips)}, "
            f"{times(max(c['jumps']['count'] for c in flips))}. A quaternion and its negative are "
            f"the same rotation: observe it through derive: rot6d, which is continuous."
        )
    if leaps:
        names = some(
            f"{c['name']} ({times(c['jumps']['count'])}, by up to {number(c['jumps']['largest'])} "
            f"at row {c['jumps']['row']})"
            for c in leaps
        )
        yield (
            f"Leaps within one step: {names}. If the robot or its localisation was reset there, "
            f"name a field in episode.reset, so that no step spans the leap."
        )


def _role(report: Report, role: str) -> list[Component]:
    return [c for c in report["components"] if c["role"] == role]


def _named_value(component: Component) -> str:
    return f"{component['name']} = {number(component['min'])}"


def _counted(report: Report, component: Component, count: int) -> str:
    return f"{component['name']} in {share(count, report['steps'])}"
