"""The gate: a suite of scenarios, on all cores, and the verdict that becomes `gate.json`.

Every episode follows from the seed alone: it meets a world and a controller as new, whatever ran
before in the same process. So one worker or many give the same record, bit for bit. Processor
time is kept apart from it; of the deadline the record says only whether it was kept.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import mujoco
import numpy as np

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.gate_record import (
    Criterion,
    GateRecord,
    Named,
    ScenarioRecord,
    bind,
    verdict_of,
)
from iql_ros.contract import Contract
from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.policies import open_policy
from iql_ros.statistics import exact_interval
from iql_ros.wire import make_types
from sim.loop import Clocked, Episode, Trial, obstacle_of
from sim.scenarios import Must, Scenario, Suite, check_topics
from sim.world import World
from sim.world_file import WorldFile, load_world_file

CHUNK = 5
"""Episodes that a worker runs in a row: about a second of work, so that Ctrl-C is heard."""
BACKEND = "onnx"
LATE_SHARE = 0.01

MakeController = Callable[[], Controller]
"""Makes the controller that is judged, in each worker; a picklable function."""


@dataclass(frozen=True)
class Run:
    """A suite that was run.

    Attributes:
        suite, seed: what was run.
        episodes: by scenario, in the order of their numbers.
        clocked: by scenario, what it took.
    """

    suite: Suite
    seed: int
    episodes: Mapping[str, Sequence[Episode]]
    clocked: Mapping[str, Clocked]


def controller_of(path: Path, backend: str = BACKEND) -> Controller:
    """The controller that a node would run of a bundle, its clock standing still.

    How long the policy takes is measured from outside, so that no status depends on it.
    """
    bundle = load_bundle(path)
    return Controller(
        bundle.contract,
        open_policy(bundle, backend).policy,
        make_types(bundle.contract.definitions),
        support=bundle.manifest.support,
        clock=lambda: 0.0,
    )


def run_suite(
    suite: Suite,
    seed: int,
    make_controller: MakeController,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Runs all episodes of all scenarios.

    Args:
        suite: what to run.
        seed: fixes all starts, noise, faults and randomised machines.
        make_controller: called once in each process and scenario.
        jobs: processes; one runs here.
        progress: called with the episodes done and all episodes.

    Raises:
        ContractError: suite, world and controller do not fit each other.
    """
    _check(suite, make_controller)
    chunks = [
        (name, range(first, min(first + CHUNK, scenario.episodes)))
        for name, scenario in suite.scenarios.items()
        for first in range(0, scenario.episodes, CHUNK)
    ]
    total = sum(len(numbers) for _, numbers in chunks)
    work = partial(_run_chunk, suite, seed, make_controller)
    done, results = 0, {}
    progress(0, total)
    if jobs == 1:
        for chunk in chunks:
            results[chunk] = work(*chunk)
            progress(done := done + len(chunk[1]), total)
    else:
        # Workers leave Ctrl-C to this process, which starts no more chunks and waits for those
        # that run.
        pool = ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_ignore_interrupts
        )
        with pool:
            running = {pool.submit(work, *chunk): chunk for chunk in chunks}
            try:
                for finished in as_completed(running):
                    chunk = running[finished]
                    results[chunk] = finished.result()
                    progress(done := done + len(chunk[1]), total)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return _collected(suite, seed, [(chunk[0], *results[chunk]) for chunk in chunks])


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collected(
    suite: Suite, seed: int, results: Sequence[tuple[str, list[Episode], Clocked]]
) -> Run:
    episodes: dict[str, list[Episode]] = {name: [] for name in suite.scenarios}
    clocked = {name: Clocked() for name in suite.scenarios}
    for name, some, took in results:
        episodes[name] += some
        clocked[name].add(took)
    return Run(suite, seed, episodes, clocked)


def _run_chunk(
    suite: Suite, seed: int, make_controller: MakeController, name: str, numbers: range
) -> tuple[list[Episode], Clocked]:
    trial = _trial(suite.model_dump_json(), seed, make_controller, name)
    trial.clocked = Clocked()
    return [trial.run(number) for number in numbers], trial.clocked


@lru_cache(maxsize=1)
def _trial(suite_json: str, seed: int, make_controller: MakeController, name: str) -> Trial:
    """A trial is used again for the next chunk of its scenario."""
    suite = Suite.model_validate_json(suite_json)
    return make_trial(suite, seed, make_controller, name)


def make_trial(suite: Suite, seed: int, make_controller: MakeController, name: str) -> Trial:
    """One scenario of a suite, ready to run. Raises ContractError."""
    scenario = suite.only(name)
    world = World(*world_of(suite), seed, spec=obstacle_of(scenario))
    return Trial(world, make_controller(), scenario)


def world_of(suite: Suite) -> tuple[WorldFile, Contract]:
    """World file and contract that a suite runs in."""
    return load_world_file(suite.narrowed().world or "")


def _check(suite: Suite, make_controller: MakeController) -> None:
    """Refuses what cannot be run together, before any worker starts."""
    file, machine = world_of(suite)
    world = World(file, machine)
    contract = make_controller().contract
    check_topics(suite, machine)
    for alias in (*contract.subscriptions, *contract.outputs):
        ours, theirs = contract.topics[alias], machine.topics.get(alias)
        if theirs is None or (ours.absolute, ours.type) != (theirs.absolute, theirs.type):
            raise ContractError(
                f"the bundle's topic {alias!r} is {ours.absolute} ({ours.type}), world "
                f"{file.world!r} has {_spoken(machine)}: choose its own world with --world"
            )
    if contract.action_size != machine.action_size or contract.tick != machine.tick:
        raise ContractError(
            f"the bundle commands {contract.action_size} components at {contract.tick}, world "
            f"{file.world!r} takes {machine.action_size} at {machine.tick}: choose its own world"
        )
    for name, scenario in suite.scenarios.items():
        if scenario.push is not None:
            bodies = [world.model.body(i).name for i in range(1, world.model.nbody)]
            if scenario.push.body not in bodies:
                raise ContractError(
                    f"suite {suite.suite!r}, scenario {name!r}: push.body {scenario.push.body!r} "
                    f"is none of {', '.join(bodies)}"
                )


def _spoken(contract: Contract) -> str:
    return ", ".join(f"{alias}: {t.absolute} ({t.type})" for alias, t in contract.topics.items())


# -- the verdict -----------------------------------------------------------------------


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
    criteria = [*_outcomes(must, episodes), *_commands(must, episodes), *_reactions(must, episodes)]
    if must.deadline_s is not None:
        late = float(np.mean(np.array(clocked.ticks_s) > must.deadline_s)) > LATE_SHARE
        # Yes or no: a figure would differ from run to run.
        criteria.append(
            _at_most(f"1 tick in 100 computes {1e3 * must.deadline_s:g} ms", float(late), 0)
        )
    return ScenarioRecord(
        name=name,
        episodes=len(episodes),
        failing=tuple(e.outcome.episode for e in episodes if _fails(must, e)),
        criteria=tuple(criteria),
    )


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
    if must.interventions is not None:
        all_ticks = sum(sum(episode.statuses.values()) for episode in episodes)
        count = all_ticks - sum(episode.statuses.get("ok", 0) for episode in episodes)
        share = count / max(1, all_ticks)
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
        if bound is not None:
            happened = [tick for tick in ticks if tick is not None]
            worst = max(happened, default=0)
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
