"""The gate: a suite of scenarios, on all cores; `sim.verdict` makes `gate.json` of it.

Every episode follows from the seed alone: it meets a world and a controller as new, whatever ran
before in the same process. So one worker or many give the same record, bit for bit. Processor
time is kept apart from it; of the deadline the record says only whether it was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from iql_ros import workers
from iql_ros.bundle import load_bundle
from iql_ros.contract import Contract
from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.policies import open_policy
from iql_ros.wire import make_types
from sim.episode import Clocked, Episode
from sim.loop import Trial, obstacle_of
from sim.scenarios import Scenario, Suite, check_topics
from sim.world import World
from sim.world_file import WorldFile, load_world_file

CHUNK = 5
"""Episodes that a worker runs in a row: about a second of work, so that Ctrl-C is heard."""
BACKEND = "onnx"

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


def _still() -> float:
    return 0.0


def controller_of(
    path: Path, backend: str = BACKEND, clock: Callable[[], float] = _still
) -> Controller:
    """The controller that a node would run of a bundle, its clock standing still.

    How long the policy takes is measured from outside, so that no status depends on it.

    Args:
        path: of the bundle.
        backend: of the policy.
        clock: in seconds, where the policy's time is to count after all.
    """
    bundle = load_bundle(path)
    return Controller(
        bundle.contract,
        open_policy(bundle, backend).policy,
        make_types(bundle.contract.definitions),
        support=bundle.manifest.support,
        clock=clock,
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
    check(suite, make_controller)
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
        # After Ctrl-C no more chunks are begun, and those that run are waited for.
        with workers.Pool(jobs) as pool:
            running = {pool.submit(work, *chunk): chunk for chunk in chunks}
            for finished in as_completed(running):
                chunk = running[finished]
                results[chunk] = finished.result()
                progress(done := done + len(chunk[1]), total)
    return _collected(suite, seed, [(chunk[0], *results[chunk]) for chunk in chunks])


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


def check(suite: Suite, make_controller: MakeController) -> None:
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
        _check_times(suite.suite, name, scenario, file)
        if scenario.push is not None:
            bodies = [world.model.body(i).name for i in range(1, world.model.nbody)]
            if scenario.push.body not in bodies:
                raise ContractError(
                    f"suite {suite.suite!r}, scenario {name!r}: push.body {scenario.push.body!r} "
                    f"is none of {', '.join(bodies)}"
                )


def _check_times(suite: str, name: str, scenario: Scenario, file: WorldFile) -> None:
    """Raises ContractError where what a scenario is about comes after its episodes end."""
    first_s = {
        "fault.at_s": None if scenario.fault is None else scenario.fault.at_s[0],
        "stop_at_s": None if scenario.stop_at_s is None else scenario.stop_at_s[0],
        "push.every_s": None if scenario.push is None else scenario.push.every_s,
    }
    for key, begin_s in first_s.items():
        if begin_s is not None and begin_s >= file.time_limit_s:
            raise ContractError(
                f"suite {suite!r}, scenario {name!r}: {key} is {begin_s:g} s or more, but episodes "
                f"of world {file.world!r} end after {file.time_limit_s:g} s: choose an earlier time"
            )


def _spoken(contract: Contract) -> str:
    return ", ".join(f"{alias}: {t.absolute} ({t.type})" for alias, t in contract.topics.items())
