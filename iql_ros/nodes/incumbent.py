"""How far shadow commands are from those of whatever moves the robot now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.sampler import SECOND_NS
from iql_ros.wire import Reader

Array = NDArray[np.float64]
FRESH_S = 1.0
"""Where the contract has no `command_timeout_s`, an older command is not compared with."""


@dataclass(frozen=True)
class Difference:
    """Ours minus the incumbent's, of one action component over `count` ticks."""

    name: str
    count: int
    bias: float
    rms: float
    largest: float


class Incumbent:
    """Compares by the rule of datasets: an action of t_k with what holds just before t_k+1."""

    def __init__(self, contract: Contract, types: Typestore) -> None:
        """Compiles readers of the command topics."""
        size = contract.action_size
        self._names = contract.action_names
        self._readers: dict[str, tuple[Reader, NDArray[np.int64]]] = {}
        self._fresh_ns: dict[str, int] = {}
        for alias in contract.outputs:
            actions = [action for action in contract.actions if action.topic == alias]
            names = [name for action in actions for name in contract.components(action.name)]
            topic = contract.topics[alias]
            reader = Reader(types, topic.type, [action.path for action in actions])
            self._readers[alias] = reader, np.array([self._names.index(name) for name in names])
            self._fresh_ns[alias] = round((topic.command_timeout_s or FRESH_S) * SECOND_NS)
        self._held = np.full(size, np.nan)
        self._arrival_ns = dict.fromkeys(contract.outputs, -(2**62))
        self._ours: Array | None = None
        self._count = 0
        self._sum, self._squares, self._largest = np.zeros(size), np.zeros(size), np.zeros(size)

    def put(self, alias: str, arrival_ns: int, payload: bytes) -> None:
        """Takes a command of the incumbent's; one that cannot be read is not compared with."""
        reader, columns = self._readers[alias]
        try:
            row = reader.read(payload)
        except LogError:
            row = None
        self._held[columns] = np.nan if row is None else row
        self._arrival_ns[alias] = arrival_ns

    def compare(self, t_ns: int, ours: Array | None) -> None:
        """Compares the action of the tick before with what is held at t; then keeps `ours`.

        Args:
            t_ns: of this tick.
            ours: the action of this tick, shape (A,); None if the policy did not act.
        """
        is_fresh = all(
            0 <= t_ns - arrival_ns <= self._fresh_ns[alias]
            for alias, arrival_ns in self._arrival_ns.items()
        )
        if self._ours is not None and is_fresh and np.isfinite(self._held).all():
            difference = self._ours - self._held
            self._count += 1
            self._sum += difference
            self._squares += difference**2
            self._largest = np.maximum(self._largest, np.abs(difference))
        self._ours = ours

    @property
    def differences(self) -> list[Difference]:
        """One for each action component; none before anything was compared."""
        n = self._count
        return [
            Difference(
                name,
                n,
                float(self._sum[i] / n),
                float(np.sqrt(self._squares[i] / n)),
                float(self._largest[i]),
            )
            for i, name in enumerate(self._names if n else ())
        ]
