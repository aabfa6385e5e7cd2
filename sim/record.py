"""Records episodes into rosbag2 files, as a robot's own recorder would.

Scripted operators drive, or a bundle in a scenario of the gate: what a policy did in simulation
converts by the same contract, and is what the next one learns from.

Bags appear under their final name only when they are whole, so a run that was interrupted
is resumed by starting it again: bags that exist are kept. What a run had not finished goes with it,
or, if it was killed, with the next run.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from iql_ros import workers
from iql_ros.bundle import load_bundle
from iql_ros.errors import ContractError
from iql_ros.wire import make_types
from sim.gate import controller_of
from sim.judge import Outcome
from sim.loop import Pilot, Trial, fly, obstacle_of
from sim.scenarios import Scenario
from sim.world import Message, World, load_world
from sim.world_file import load_world_file

RESULTS = "results.json"
ORIGIN = "recorded_from.sha256"
UNFINISHED = ".unfinished-"

START_NS = 1_760_000_000_000_000_000  # October 2025
BAG_SPACING_NS = 3_600_000_000_000  # bags begin an hour apart
DECISION_NS = (1_000_000, 3_000_000)  # from the triggering message to the command


@dataclass(frozen=True)
class Recording:
    """Bags and how the episodes in them went."""

    bags: tuple[Path, ...]
    results: tuple[Outcome, ...]

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded."""
        return float(np.mean([result.success for result in self.results]))

    @property
    def mean_return(self) -> float:
        """Mean undiscounted sum of rewards of an episode."""
        return float(np.mean([result.total_reward for result in self.results]))


def record(
    out: Path,
    episodes: int,
    seed: int,
    episodes_per_bag: int = 50,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    world: str = "arm6",
    driver: Driver | None = None,
) -> Recording:
    """Records `episodes` episodes, the same whatever the number of jobs.

    Args:
        out: folder for the bags; made if absent. A bag in it that this call would write is
            kept as it is, if it came from the same world and drivers.
        episodes: how many, at least 1.
        seed: the same seed gives the same messages.
        episodes_per_bag: how many share a bag.
        jobs: processes to record bags with.
        progress: called with the episodes done and all episodes, after each bag.
        world: a world file, or the name of a shipped world; it names its operators.
        driver: who drives in their place.

    Raises:
        ContractError: the world is wrong, or a bag is there that came from another.
    """
    if episodes < 1 or episodes_per_bag < 1:
        raise ValueError(
            f"episodes = {episodes}, episodes_per_bag = {episodes_per_bag}: both must be at least 1"
        )
    out.mkdir(parents=True, exist_ok=True)
    shares = [
        range(first, min(first + episodes_per_bag, episodes))
        for first in range(0, episodes, episodes_per_bag)
    ]
    stage = load_world(world)
    origin = _origin(stage, Path(world).parent, driver)
    name = stage.file.world
    name = name if driver is None else f"{name}_{driver.bundle.name}_{driver.scenario_name}"
    bags = [out / f"{name}_seed{seed}_{n.start:05d}-{n.stop - 1:05d}" for n in shares]
    todo = [(bag, numbers) for bag, numbers in zip(bags, shares, strict=True) if not bag.exists()]
    _refuse_foreign(bags, origin)
    done = episodes - sum(len(numbers) for _, numbers in todo)
    progress(done, episodes)
    # Dropped after Ctrl-C, as a bag can take minutes more.
    with _drafts(out) as drafts, workers.Pool(jobs, drops=True) as pool:
        record_bag = partial(_record_bag, world, drafts, seed, driver, origin)
        running = {pool.submit(record_bag, bag, numbers): len(numbers) for bag, numbers in todo}
        for finished in as_completed(running):
            finished.result()
            done += running[finished]
            progress(done, episodes)
    return Recording(tuple(bags), tuple(r for bag in bags for r in read_results(bag)))


def read_results(bag: Path) -> list[Outcome]:
    """How the episodes in a recorded bag went."""
    return [Outcome(**entry) for entry in json.loads((bag / RESULTS).read_text())]


@contextmanager
def _drafts(out: Path) -> Iterator[Path]:
    """A hidden folder in `out` for bags under way, which goes with this run.

    The folders of runs that were killed are removed first. A run that lives holds a lock on `out`,
    which ends with its process however that ends; while another does, all such folders stay.
    """
    lock = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # another run is alive, or this file system locks no folders
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in out.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(dir=out, prefix=UNFINISHED) as folder:
            yield Path(folder)
    finally:
        os.close(lock)


def _origin(world: World, folder: Path, driver: Driver | None) -> str:
    """A hash of all that decides what the episodes of a seed are."""
    parts = [world.digest]
    if driver is None:
        module = (world.file.behaviour or "").partition(":")[0]
        path = folder / module if module.endswith(".py") else _origin_of_module(module)
        parts.append(path.read_text() if path is not None and path.is_file() else "")
    else:
        parts += [load_bundle(driver.bundle).digest, driver.scenario.model_dump_json()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _origin_of_module(name: str) -> Path | None:
    spec = importlib.util.find_spec(name) if name else None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _refuse_foreign(bags: Sequence[Path], origin: str) -> None:
    for bag in bags:
        said = bag / ORIGIN
        if bag.exists() and not (said.is_file() and said.read_text() == origin):
            raise ContractError(
                f"{bag} was recorded before the model, contract, world file or drivers became what "
                f"they are: delete {bag.parent}, or record into another folder"
            )


def _record_bag(
    source: str,
    drafts: Path,
    seed: int,
    driver: Driver | None,
    origin: str,
    bag: Path,
    episodes: range,
) -> None:
    if driver is None:
        world = load_world(source, seed)
    else:
        spec = obstacle_of(driver.scenario)
        world = World(*load_world_file(source), seed, spec=spec)
    world.t_ns = START_NS + episodes.start * BAG_SPACING_NS
    unfinished = drafts / bag.name
    drive = partial(_operators, Path(source).parent) if driver is None else driver.drive
    _write_bag(unfinished, world, episodes, drive)
    (unfinished / ORIGIN).write_text(origin)
    unfinished.rename(bag)


def _write_bag(path: Path, world: World, episodes: range, drive: Drive) -> None:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        log = _Log(writer, world, np.random.default_rng([world.seed, episodes.start, 1]))
        outcomes = drive(world, episodes, log)
    (path / RESULTS).write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))


def _operators(folder: Path, world: World, episodes: range, log: _Log) -> list[Outcome]:
    make_pilot, outcomes = _behaviour(world, folder), []
    for episode in episodes:
        pilot = make_pilot(np.random.default_rng([world.seed, episode, 2]), world)
        outcomes.append(fly(world, pilot, episode, log.heard, log.said))
    return outcomes


@dataclass(frozen=True)
class Driver:
    """A bundle that drives in a scenario.

    Attributes:
        bundle: its folder.
        scenario_name, scenario: what happens meanwhile. What a scenario does to messages on their
            way is not in the log: a recorder hears what the sensors sent.
    """

    bundle: Path
    scenario_name: str
    scenario: Scenario

    def drive(self, world: World, episodes: range, log: _Log) -> list[Outcome]:
        """Runs the episodes one after the other; the log hears all that is said."""
        trial = Trial(world, controller_of(self.bundle), self.scenario)
        outcomes = []
        for episode in episodes:
            run = trial.run(
                episode,
                decided=lambda command: log.said(command.payloads),
                sent=log.heard,
                start_ns=world.t_ns,
            )
            outcomes.append(run.outcome)
        return outcomes


def _behaviour(world: World, folder: Path) -> Callable[[np.random.Generator, World], Pilot]:
    """The class of operators that the world file in `folder` names."""
    named = world.file.behaviour
    if named is None:
        raise ContractError(
            f"world {world.file.world!r} names no behaviour: give `behaviour: file.py:Class` in "
            f"its file, or record your own robot"
        )
    module, _, name = named.partition(":")
    found: Callable[[np.random.Generator, World], Pilot] | None = getattr(
        _from_file(folder / module) if module.endswith(".py") else importlib.import_module(module),
        name,
        None,
    )
    if found is None:
        raise ContractError(f"world {world.file.world!r}: behaviour {named!r} has no such class")
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ContractError(f"behaviour {path} is no file: it is sought beside the world file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Drive = Callable[[World, range, "_Log"], list[Outcome]]
"""Drives the episodes, and lets the log hear what is said; returns how they ended."""


class _Log:
    """Writes what passes between world and operator into one bag."""

    def __init__(self, writer: Writer, world: World, rng: np.random.Generator) -> None:
        types = make_types(world.contract.definitions)
        self._writer, self._world, self._rng = writer, world, rng
        self._connections: dict[str, Connection] = {
            alias: writer.add_connection(topic.absolute, topic.type, typestore=types)
            for alias, topic in world.contract.topics.items()
        }
        # The controller is at rest from before the first decision.
        for alias, payload in world.encode(world.contract.action_safe).items():
            self._write(alias, world.t_ns, payload)

    def heard(self, messages: Sequence[Message]) -> None:
        """Writes the messages of one sensor period."""
        for message in messages:
            self._write(*message)

    def said(self, payloads: Mapping[str, bytes]) -> None:
        """Writes the messages of one command, as late as a decision takes."""
        arrival_ns = self._world.t_ns + int(self._rng.integers(*DECISION_NS))
        for alias, payload in payloads.items():
            self._write(alias, arrival_ns, payload)

    def _write(self, alias: str, arrival_ns: int, payload: bytes) -> None:
        self._writer.write(self._connections[alias], arrival_ns, payload)
