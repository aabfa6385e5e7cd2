"""From payloads to what a tick looks at: the sample, frozen topics, the enable switch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.control.watches import FrozenWatch, Switch
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from iql_ros.payloads.messages import Encoding
from iql_ros.sampler import SECOND_NS, Sample, Sampler
from iql_ros.wire import STAMP, Reader

Array = NDArray[np.float64]


class Inbox:
    """Reads the payloads of one contract's topics. Nothing here raises once it is made."""

    def __init__(self, contract: Contract, types: Typestore, encoding: Encoding) -> None:
        """Compiles the readers.

        Raises:
            ContractError: a path does not fit its message type.
        """
        plan = FieldPlan(contract, [field.name for field in contract.observations])
        self._stamped = {alias for alias in contract.topics if _is_stamped(contract, alias)}
        self._readers = {
            alias: _reader(contract, types, encoding, alias, paths)
            for alias, paths in plan.paths.items()
        }
        self._sampler = Sampler(plan)
        self._frozen = FrozenWatch(contract)
        self._switch: Switch | None = None
        self._switch_topic: str | None = None
        enable = contract.safety.enable
        if enable is not None:
            self._switch_topic = enable.topic
            self._switch_reader = _reader(contract, types, encoding, enable.topic, [enable.path])
            self._switch = Switch(contract)
        self._unreadable: dict[str, str] = {}

    def put(self, alias: str, arrival_ns: int, payload: bytes | memoryview) -> bool:
        """Takes one message of any topic; one that cannot be read is remembered as a problem.

        Returns:
            Whether it has all values that are wanted of its topic.
        """
        if alias == self._switch_topic and self._switch is not None:
            row, stamp_ns, _ = self._read(self._switch_reader, alias, arrival_ns, payload)
            self._switch.put(min(arrival_ns, stamp_ns), None if row is None else float(row[0]))
        reader = self._readers.get(alias)
        if reader is None:
            return True
        row, stamp_ns, problem = self._read(reader, alias, arrival_ns, payload)
        if row is None:
            self._unreadable[alias] = problem
            return False
        self._unreadable.pop(alias, None)
        self._frozen.put(alias, arrival_ns, row)
        self._sampler.put(alias, arrival_ns, stamp_ns, row)
        return True

    def _read(
        self, reader: Reader, alias: str, arrival_ns: int, payload: bytes | memoryview
    ) -> tuple[Array | None, int, str]:
        """The values, the time the message counts for, and why there are no values."""
        try:
            row = reader.read(payload)
            if row is None:
                return None, arrival_ns, reader.why_absent(payload)
        except LogError as error:
            return None, arrival_ns, str(error)
        if alias not in self._stamped:
            return row, arrival_ns, ""
        return row[:-2], int(row[-2]) * SECOND_NS + int(row[-1]), ""

    def sample(self, t_ns: int, previous_action: Array | None) -> Sample:
        """What the policy sees at t, see `Sampler.sample`."""
        return self._sampler.sample(t_ns, previous_action)

    @property
    def problems(self) -> list[str]:
        """Why the newest messages of some topics could not be read."""
        return list(self._unreadable.values())

    def frozen(self, t_ns: int) -> str:
        """Which topic repeats itself for too long, in words; "" if none does."""
        return self._frozen.fault(t_ns)

    def released(self, t_ns: int) -> str:
        """Why the enable switch forbids acting; "" if it is held, or there is none."""
        return "" if self._switch is None else self._switch.fault(t_ns)

    def restart(self) -> None:
        """Forgets earlier steps, not the messages."""
        self._sampler.restart()

    def clear(self) -> None:
        """Forgets all messages and steps, as after a jump of the clock."""
        self._sampler.clear()
        self._frozen.since.clear()
        if self._switch is not None:
            self._switch.newest = None

    def snapshot(self) -> dict[str, Any]:
        """All that it remembers, in lists, dicts and arrays that no one writes to."""
        return {
            "sampler": self._sampler.snapshot(),
            "frozen": {alias: list(held) for alias, held in self._frozen.since.items()},
            "switch": None if self._switch is None else self._switch.newest,
            "unreadable": dict(self._unreadable),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on as the inbox that gave the snapshot would have."""
        self._sampler.restore(snapshot["sampler"])
        self._frozen.since = {alias: (t, row) for alias, (t, row) in snapshot["frozen"].items()}
        if self._switch is not None:
            held = snapshot["switch"]
            self._switch.newest = None if held is None else (held[0], held[1])
        self._unreadable = dict(snapshot["unreadable"])


def _is_stamped(contract: Contract, alias: str) -> bool:
    return contract.topics[alias].clock == "header"


def _reader(
    contract: Contract, types: Typestore, encoding: Encoding, alias: str, paths: list[str]
) -> Reader:
    stamp = STAMP if _is_stamped(contract, alias) else []
    return Reader(types, contract.topics[alias].type, [*paths, *stamp], encoding)
