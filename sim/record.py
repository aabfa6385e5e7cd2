"""Records operators at work into rosbag2 files, as a robot's own recorder would.

Bags appear under their final name only when they are whole, so a run that was interrupted
is resumed by starting it again: bags that exist are kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from iql_ros.contract import Contract, load_contract
from sim.behaviour import Behaviour
from sim.loop import run_episode
from sim.messages import encode, encode_command
from sim.task import EpisodeResult
from sim.world import ArmWorld, Reading

ROBOT = "arm6"
RESULTS = "results.json"

START_NS = 1_760_000_000_000_000_000  # October 2025
BAG_SPACING_NS = 3_600_000_000_000  # bags begin an hour apart
DECISION_NS = (1_000_000, 3_000_000)  # from the triggering message to the command


@dataclass(frozen=True)
class Recording:
    """Bags and how the episodes in them went."""

    bags: tuple[Path, ...]
    results: tuple[EpisodeResult, ...]

    @property
    def success_rate(self) -> float:
        """Share of episodes that reached the target."""
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
) -> Recording:
    """Records `episodes` episodes of mixed operators, the same whatever the number of jobs.

    Args:
        out: folder for the bags; made if absent. A bag in it that this call would write is
            kept as it is.
        episodes: how many, at least 1.
        seed: the same seed gives the same messages.
        episodes_per_bag: how many share a bag.
        jobs: processes to record bags with.
        progress: called with the episodes done and all episodes, after each bag.
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
    bags = [out / f"{ROBOT}_seed{seed}_{n.start:05d}-{n.stop - 1:05d}" for n in shares]
    todo = [(bag, numbers) for bag, numbers in zip(bags, shares, strict=True) if not bag.exists()]
    done = episodes - sum(len(numbers) for _, numbers in todo)
    progress(done, episodes)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_record_bag, bag, n, seed): len(n) for bag, n in todo}
        try:
            for finished in as_completed(running):
                finished.result()
                done += running[finished]
                progress(done, episodes)
        except BaseException:  # Ctrl-C included: what has not begun never will
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Recording(tuple(bags), tuple(r for bag in bags for r in read_results(bag)))


def read_results(bag: Path) -> list[EpisodeResult]:
    """How the episodes in a recorded bag went."""
    return [EpisodeResult(**entry) for entry in json.loads((bag / RESULTS).read_text())]


def _record_bag(bag: Path, episodes: range, seed: int) -> None:
    with tempfile.TemporaryDirectory(dir=bag.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder) / bag.name
        _write_bag(unfinished, load_contract(ROBOT), episodes, seed)
        unfinished.rename(bag)


def _write_bag(path: Path, contract: Contract, episodes: range, seed: int) -> None:
    world = ArmWorld(seed, START_NS + episodes.start * BAG_SPACING_NS)
    results = []
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        log = _Log(writer, contract, np.random.default_rng([seed, episodes.start, 1]))
        for episode in episodes:
            behaviour = Behaviour(np.random.default_rng([seed, episode, 2]))
            pilot = log.writing_commands_of(behaviour)
            results.append(run_episode(world, pilot, episode, log.write_readings))
    (path / RESULTS).write_text(json.dumps([asdict(result) for result in results], indent=1))


class _Log:
    """Writes what passes between world and operator into one bag."""

    def __init__(self, writer: Writer, contract: Contract, rng: np.random.Generator) -> None:
        types = get_typestore(Stores.ROS2_JAZZY)
        self._writer = writer
        self._rng = rng
        self._connections: dict[str, Connection] = {
            alias: writer.add_connection(topic.absolute, topic.type, typestore=types)
            for alias, topic in contract.topics.items()
        }
        self._is_empty = True

    def write_readings(self, readings: Sequence[Reading]) -> None:
        """Writes the readings of one control period."""
        if self._is_empty:
            # The bag begins at a decision instant, with the controller at rest, so that
            # "every fifth joint state" counted from its start hits the decision instants.
            readings = readings[-1:]
            self._write("command", readings[0].t_ns - 1, encode_command(np.zeros(6)))
            self._is_empty = False
        for i, reading in enumerate(readings):
            for message in encode(reading, announce=i == 0):
                self._write(*message)

    def writing_commands_of(
        self, behaviour: Behaviour
    ) -> Callable[[Sequence[Reading]], NDArray[np.float64]]:
        """`behaviour`, with each of its commands written to the bag."""

        def pilot(readings: Sequence[Reading]) -> NDArray[np.float64]:
            command = behaviour(readings)
            arrival_ns = readings[-1].t_ns + int(self._rng.integers(*DECISION_NS))
            self._write("command", arrival_ns, encode_command(command))
            return command

        return pilot

    def _write(self, alias: str, arrival_ns: int, payload: bytes) -> None:
        self._writer.write(self._connections[alias], arrival_ns, payload)
