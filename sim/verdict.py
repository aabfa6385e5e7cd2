"""From a run to a verdict: every scenario is held against what must hold in it."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import (
    Criterion,
    GateRecord,
    Named,
    ScenarioRecord,
    bind,
    verdict_of,
)
from iql_ros.statistics import exact_interval
from sim.episode import Clocked, Episode
from sim.gate import BACKEND, Run, world_of
from sim.scenarios import Must, Scenario
from sim.world import World

LATE_SHARE = 0.01


def record_of(bundle: Bundle, run: Run, backend: str = BACKEND) -> GateRecord:
    """What `gate.json` says of a run of `bundle`."""
    scenarios = judge_run(run)
    file, contract = world_of(run.suite)
    return GateRecord(
        bundle_digest=bundle.digest,
        verdict=verdict_of(scenarios),
        seed=run.seed,
        bound_to=bind(
            bundle,
            suite=Named(name=run.suite.suite, sha256=run.suite.digest),
            world=Named(name=file.world, sha256=World(file, contract).digest),
            software={"mujoco": mujoco.__version__, "numpy": np.__version__},
            backend=backend,
        ),
        scenarios=scenarios,
    )


def judge_run(run: Run) -> tuple[ScenarioRecord, ...]:
    """Holds every scenario of a run against what must hold in it."""
    return tuple(
        judge(name, scenario, run.episodes[name], run.clocked[name])
        for name, scenario in run.suite.scenarios.items()
    )


def judge(
    name: str, scenario: Scenario, episodes: Sequence[Episode], clocked: Clocked
) -> ScenarioRecord:
    """Holds the episodes of a scenario against what must hold."""
    must = scenario.must
    criteria = [
        *_happened(scenario, episodes),
        *_outcomes(must, episodes),
        *_commands(must, episodes),
        *_reactions(must, episodes),
        *_times(must, clocked),
    ]
    return ScenarioRecord(
        name=name,
        episodes=len(episodes),
        failing=tuple(e.outcome.episode for e in episodes if _fails(must, e)),
        criteria=tuple(criteria),
    )


def advice(criterion: Criterion) -> str | None:
    """What to do about a criterion that failed because nothing was measured; None for others."""
    return _ADVICE.get(criterion.name)


FAULT_BEGAN = "episodes in which fault.at_s came"
STOP_CAME = "episodes in which stop_at_s came"
DECIDED = "decisions"
_ADVICE = {
    FAULT_BEGAN: "every episode ended before the fault began: let fault.at_s begin earlier",
    STOP_CAME: "every episode ended before the stop was pressed: let stop_at_s begin earlier",
    DECIDED: "the controller never ticked: does the world send the topics that the bundle needs?",
}


def _happened(scenario: Scenario, episodes: Sequence[Episode]) -> list[Criterion]:
    """What is measured on nothing has not been shown: the event must come in some episode."""
    criteria = []
    for name, event, ticks in (
        (FAULT_BEGAN, scenario.fault, [e.notice_ticks for e in episodes]),
        (STOP_CAME, scenario.stop_at_s, [e.stop_ticks for e in episodes]),
    ):
        if event is not None:
            count = sum(tick is not None for tick in ticks)
            criteria.append(_at_least_one(name, count, len(episodes)))
    if not any(episode.statuses for episode in episodes):
        criteria.append(_at_least_one(DECIDED, 0, None))
    return criteria


def _outcomes(must: Must, episodes: Sequence[Episode]) -> list[Criterion]:
    if must.success is None:
        return []
    count = sum(episode.outcome.success for episode in episodes)
    low, high = exact_interval(count, len(episodes))
    return [
        Criterion(
            name="success rate",
            rule="at_least",
            bound=must.success,
            judged=low,
            count=count,
            of=len(episodes),
            interval=(low, high),
            passed=low >= must.success,
        )
    ]


def _commands(must: Must, episodes: Sequence[Episode]) -> list[Criterion]:
    criteria = []
    sums = {
        "limit violations at the actuators": (must.limit_violations, "limit_violations"),
        "slew violations at the actuators": (must.slew_violations, "slew_violations"),
    }
    for what, (bound, attribute) in sums.items():
        if bound is not None:
            found = sum(getattr(episode, attribute) for episode in episodes)
            criteria.append(_at_most(what, found, bound))
    all_ticks = sum(sum(episode.statuses.values()) for episode in episodes)
    if must.interventions is not None and all_ticks:
        count = all_ticks - sum(episode.statuses.get("ok", 0) for episode in episodes)
        share = count / all_ticks
        criteria.append(
            _at_most("interventions, share of ticks", share, must.interventions, count, all_ticks)
        )
    return criteria


def _reactions(must: Must, episodes: Sequence[Episode]) -> list[Criterion]:
    criteria = []
    for what, bound, ticks in (
        ("worst stop", must.stop_ticks, [e.stop_ticks for e in episodes]),
        ("worst notice of the fault", must.notice_ticks, [e.notice_ticks for e in episodes]),
    ):
        happened = [tick for tick in ticks if tick is not None]
        if bound is not None and happened:
            worst = max(happened)
            criteria.append(
                Criterion(
                    name=what,
                    rule="at_most",
                    bound=bound,
                    judged=worst,
                    unit="ticks",
                    count=len(happened),
                    of=len(episodes),
                    passed=worst <= bound,
                )
            )
    return criteria


def _times(must: Must, clocked: Clocked) -> list[Criterion]:
    if must.deadline_s is None or not clocked.ticks_s:
        return []
    late = sum(tick_s > must.deadline_s for tick_s in clocked.ticks_s)
    # One late tick says nothing of a share: fewer than a hundred may have it.
    too_many = late > max(1.0, LATE_SHARE * len(clocked.ticks_s))
    # Yes or no: a figure would differ from run to run.
    return [_at_most(f"1 tick in 100 computes {1e3 * must.deadline_s:g} ms", float(too_many), 0)]


def _at_least_one(name: str, count: int, of: int | None) -> Criterion:
    return Criterion(
        name=name, rule="at_least", bound=1, judged=count, count=count, of=of, passed=count > 0
    )


def _at_most(
    name: str, judged: float, bound: float, count: int | None = None, of: int | None = None
) -> Criterion:
    return Criterion(
        name=name,
        rule="at_most",
        bound=bound,
        judged=judged,
        count=count,
        of=of,
        passed=judged <= bound,
    )


def _fails(must: Must, episode: Episode) -> bool:
    """Whether an episode alone breaks what is asked of each."""

    def exceeds(value: int | None, bound: int | None) -> bool:
        return value is not None and bound is not None and value > bound

    return (
        (must.success is not None and not episode.outcome.success)
        or exceeds(episode.limit_violations, must.limit_violations)
        or exceeds(episode.slew_violations, must.slew_violations)
        or exceeds(episode.stop_ticks, must.stop_ticks)
        or exceeds(episode.notice_ticks, must.notice_ticks)
    )
