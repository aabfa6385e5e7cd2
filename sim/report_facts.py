"""What the report of a gate shows, as plain facts: episodes, strands, the worst and the usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import GateRecord, ScenarioRecord
from iql_ros.contract import Contract
from iql_ros.control.command import Command
from sim.episode import Episode
from sim.expressions import Expression
from sim.gate import MakeController, Run, make_trial
from sim.world import World

MOST_STRANDS = 20
MOST_COLUMNS = 6
"""Of the task, and of the actions, that are drawn."""
MOST_WORST = 12
WORST_EACH = 3
"""Of one scenario."""


def facts_of(
    bundle: Bundle,
    record: GateRecord,
    run: Run,
    make_controller: MakeController,
    *,
    command: str,
) -> dict[str, Any]:
    """All that the page shows but the films, as JSON has it.

    Args:
        record: of `run`.
        command: runs this suite with this seed; `--scenario X --episode N` is added to it.
    """
    usual = usual_scenario(run)
    worst = worst_of(record, run)
    drawn = [(usual, e.outcome.episode) for e in run.episodes[usual][:MOST_STRANDS]]
    if worst and worst[0] not in drawn:
        drawn.append(worst[0])
    return {
        "bundle": bundle.path.name,
        "robot": bundle.contract.robot,
        "provenance": bundle.manifest.provenance.model_dump(mode="json"),
        "record": record.model_dump(mode="json"),
        "suite_description": run.suite.description,
        "scenarios": [
            {
                "name": name,
                "description": scenario.description,
                "episodes": [episode_facts(e) for e in run.episodes[name]],
                "tick_us": _ticks(run, name),
            }
            for name, scenario in run.suite.scenarios.items()
        ],
        "usual": {"scenario": usual, "episode": usual_episode(run.episodes[usual])},
        "worst": [
            {
                "scenario": name,
                "episode": number,
                "why": _why(record, run, name, number),
                "command": f"{command} --scenario {name} --episode {number}",
            }
            for name, number in worst
        ],
        "limits": _limits(bundle.contract),
        "strands": [strand(run, make_controller, name, number) for name, number in drawn],
    }


def episode_facts(episode: Episode) -> dict[str, Any]:
    """One episode without its decisions."""
    outcome = episode.outcome
    return {
        "episode": outcome.episode,
        "success": outcome.success,
        "ending": outcome.ending,
        "steps": outcome.steps,
        "duration_s": outcome.duration_s,
        "return": outcome.total_reward,
        "statuses": episode.statuses,
        "interventions": episode.interventions,
    }


def usual_scenario(run: Run) -> str:
    """The one called nominal, or the first."""
    return "nominal" if "nominal" in run.episodes else next(iter(run.episodes))


def usual_episode(episodes: Sequence[Episode]) -> int:
    """The number of the episode with the median return, of those that succeeded if any did."""
    good = [e for e in episodes if e.outcome.success] or list(episodes)
    by_return = sorted(good, key=lambda e: (e.outcome.total_reward, e.outcome.episode))
    return by_return[len(by_return) // 2].outcome.episode


def worst_of(record: GateRecord, run: Run) -> list[tuple[str, int]]:
    """Scenario and number of the worst episodes: of failed scenarios, failing, by least return.

    Where none is failing, those of least return in the scenarios that ask for success.
    """
    of = {scenario.name: scenario for scenario in record.scenarios}
    ranked = []
    for name, episodes in run.episodes.items():
        asks = run.suite.scenarios[name].must.success is not None
        for e in episodes:
            number = e.outcome.episode
            is_failing = number in of[name].failing
            if is_failing or asks:
                rank = (of[name].passed, not is_failing, e.outcome.total_reward)
                ranked.append((rank, name, number))
    chosen: list[tuple[str, int]] = []
    for _, name, number in sorted(ranked):
        if sum(other == name for other, _ in chosen) < WORST_EACH:
            chosen.append((name, number))
    return chosen[:MOST_WORST]


def strand(run: Run, make_controller: MakeController, name: str, number: int) -> dict[str, Any]:
    """Plays an episode again and keeps what the task looks at, and what was commanded.

    Returns:
        `t_s` and `task` (columns at each control step), `action_t_s` and `actions` (at each
        decision), `statuses`.
    """
    trial = make_trial(run.suite, run.seed, make_controller, name)
    columns: dict[str, list[float]] = {}
    times: list[float] = []
    begun: list[int] = []

    def see(world: World) -> None:
        if not begun:
            begun.append(world.t_ns)
            columns.update({column: [] for column in _task_columns(world)})
        if world.is_deciding:
            now = _flat(world)
            if all(column in now for column in columns):
                times.append((world.t_ns - begun[0]) / 1e9)
                for column, values in columns.items():
                    values.append(now[column])

    commands: list[Command] = []
    episode = trial.run(number, seen=see, decided=commands.append)
    contract, trace = make_controller().contract, episode.trace
    return {
        "scenario": name,
        "episode": number,
        "success": episode.outcome.success,
        "t_s": [round(t, 4) for t in times],
        "task": {column: _rounded(values) for column, values in columns.items()},
        "action_t_s": [round(float(t), 4) for t in trace.t_s],
        "actions": {
            component: _rounded(trace.actions[:, i])
            for i, component in enumerate(contract.action_names[:MOST_COLUMNS])
        },
        "statuses": list(trace.statuses),
    }


def _flat(world: World) -> dict[str, float]:
    return {
        component: float(value)
        for name, values in world.fields.items()
        for component, value in zip(world.contract.components(name), values, strict=True)
    }


def _task_columns(world: World) -> list[str]:
    """Components that success and failure look at; failing that, the first observations."""
    known = [
        component
        for field in world.contract.fields.values()
        if field.history_of is None and not field.previous_action
        for component in world.contract.components(field.name)
    ]
    rules = [rule for rule in (world.file.success, world.file.failure) if rule is not None]
    named = dict.fromkeys(name for rule in rules for name in Expression(rule, known, "task").names)
    return [*(named or dict.fromkeys(known))][:MOST_COLUMNS]


def _rounded(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Five digits are enough for a plot; JSON has no NaN."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]


def _limits(contract: Contract) -> dict[str, tuple[float, float]]:
    low, high = contract.action_low.tolist(), contract.action_high.tolist()
    return {name: (a, b) for name, a, b in zip(contract.action_names, low, high, strict=True)}


def _ticks(run: Run, name: str) -> dict[str, float] | None:
    ticks = np.array(run.clocked[name].ticks_s) * 1e6
    if not len(ticks):
        return None
    return {f"p{p}": round(float(np.percentile(ticks, p)), 1) for p in (50, 99)}


def _why(record: GateRecord, run: Run, name: str, number: int) -> str:
    scenario = next(s for s in record.scenarios if s.name == name)
    episode = next(e for e in run.episodes[name] if e.outcome.episode == number)
    parts = [] if number in scenario.failing else ["holds, but earns least"]
    parts.append(episode.outcome.ending)
    counted: Mapping[str, int] = {
        "limit violations": episode.limit_violations,
        "slew violations": episode.slew_violations,
    }
    parts += [f"{count} {what}" for what, count in counted.items() if count]
    if episode.stop_ticks is not None:
        parts.append(f"stopped after {episode.stop_ticks} ticks")
    if episode.notice_ticks is not None:
        parts.append(f"fell back {episode.notice_ticks} ticks after the fault")
    return ", ".join(parts)


def failed_criteria(scenarios: Sequence[ScenarioRecord]) -> list[str]:
    """Each criterion that does not hold, in words."""
    return [
        f"{scenario.name}: {criterion.in_words()}"
        + ("; too few episodes to show it" if criterion.count == criterion.of is not None else "")
        for scenario in scenarios
        for criterion in scenario.criteria
        if not criterion.passed
    ]
