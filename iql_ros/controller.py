"""The control loop without a clock or ROS: payloads in, commands out.

The node, the simulator's lockstep loop and the tests drive this same object, so what passed
in simulation is what runs on the robot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.envelope import Envelope
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from iql_ros.messages import Encoding, Struct, message_tree
from iql_ros.sampler import SECOND_NS, Sampler, max_age_ns
from iql_ros.status import Status
from iql_ros.wire import Reader, Writer

Array = NDArray[np.float64]
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]

STAMP = ["header.stamp.sec", "header.stamp.nanosec"]


@dataclass(frozen=True)
class Command:
    """What one tick decided.

    Attributes:
        t_ns: the instant.
        status: what became of the tick.
        detail: why, in words; empty when there is nothing to say.
        action: shape (A,), float64; what is or would be published.
        payloads: serialised messages by topic alias; empty: publish nothing.
        ages_s: age of each topic's message, by alias.
    """

    t_ns: int
    status: Status
    detail: str
    action: Array
    payloads: Mapping[str, bytes]
    ages_s: Mapping[str, float] = field(default_factory=dict)


class Controller:
    """One policy under one contract.

    Nothing is published before the first observation that is complete, so that a robot
    without sensors never moves; from then on every tick publishes a command.
    """

    def __init__(
        self,
        contract: Contract,
        policy: Policy,
        types: Typestore,
        *,
        source: tuple[Typestore, Encoding] | None = None,
    ) -> None:
        """Compiles readers and writers.

        Args:
            contract: of the robot.
            policy: (O,) float32 to (A,) float32.
            types: message definitions of all its topics, ROS 2.
            source: definitions and encoding of the payloads, where they come from a log that
                was written otherwise; by default CDR of `types`.

        Raises:
            ContractError: a path does not fit its message type.
        """
        self.contract = contract
        self.inputs = contract.inputs(signals=False)
        self._policy = policy
        plan = FieldPlan(contract, [f.name for f in contract.observations])
        self._in_plan = frozenset(plan.paths)
        read_types, encoding = source or (types, "cdr")
        self._readers = {
            alias: Reader(
                read_types, contract.topics[alias].type, self._paths(plan, alias), encoding
            )
            for alias in self._in_plan
        }
        self._writers = {alias: _Output(contract, types, alias) for alias in contract.outputs}
        self._sampler = Sampler(plan)
        self._envelope = Envelope(contract)
        self._triggers = 0
        self._last: tuple[int, Array] | None = None
        self._last_tick_ns: int | None = None
        self._has_published = False
        self._unreadable: dict[str, str] = {}

    def _paths(self, plan: FieldPlan, alias: str) -> list[str]:
        stamp = STAMP if self.contract.topics[alias].clock == "header" else []
        return [*plan.paths[alias], *stamp]

    def put(self, alias: str, arrival_ns: int, payload: bytes | memoryview) -> bool:
        """Takes one message of an input topic; never raises.

        Returns:
            Whether a tick is due now: the topic is the trigger and this is its n-th message.
        """
        if alias in self._in_plan:
            try:
                row = self._readers[alias].read(payload)
                problem = "" if row is not None else self._readers[alias].why_absent(payload)
            except LogError as error:
                row, problem = None, str(error)
            if row is None:
                self._unreadable[alias] = problem
            else:
                self._unreadable.pop(alias, None)
                stamp_ns = arrival_ns
                if self.contract.topics[alias].clock == "header":
                    stamp_ns = int(row[-2]) * SECOND_NS + int(row[-1])
                    row = row[:-2]
                self._sampler.put(alias, arrival_ns, stamp_ns, row)
        if alias != self.contract.tick.trigger:
            return False
        self._triggers += 1
        return (self._triggers - 1) % self.contract.tick.every == 0

    def tick(self, t_ns: int) -> Command:
        """Decides one command; never raises.

        Args:
            t_ns: now, on the clock that also gave the arrival times.
        """
        dt_s = 0.0 if self._last is None else (t_ns - self._last[0]) / SECOND_NS
        if dt_s < 0:  # the clock jumped back
            self._forget()
        self._last_tick_ns = t_ns
        previous = None if self._last is None else self._last[1]
        sample = self._sampler.sample(t_ns, previous)
        if not sample.status.acts:
            detail = "; ".join([sample.detail, *self._unreadable.values()])
            return self._safe(t_ns, sample.status, detail, sample.ages_s)
        try:
            proposed = np.asarray(self._policy(sample.observation.astype(np.float32)), np.float64)
        except Exception as error:  # any fault of a backend must end in the safe action
            return self._safe(t_ns, Status.POLICY, f"the policy raised {error!r}", sample.ages_s)
        result = self._envelope(proposed, previous, dt_s)
        return self._publish(t_ns, result.status, result.detail, result.action, sample.ages_s)

    def overdue(self, t_ns: int) -> Command | None:
        """The safe command if the trigger topic has gone silent, otherwise None.

        A trigger-driven robot would else keep its last command for ever. Call it on a timer.
        """
        trigger = self.contract.tick.trigger
        if trigger is None or self._last is None or self._last_tick_ns is None:
            return None
        silent_ns = t_ns - self._last_tick_ns
        if silent_ns <= max_age_ns(self.contract, trigger):
            return None
        topic = self.contract.topics[trigger].absolute
        detail = f"no tick for {silent_ns / SECOND_NS:.2f} s: is {topic} publishing?"
        return self._safe(t_ns, Status.STALE, detail, {})

    def stop(self, t_ns: int) -> Command:
        """The safe command, if anything was ever published; otherwise an empty one."""
        return self._safe(t_ns, Status.WAITING, "stopped", {})

    def restart(self) -> None:
        """Begins anew, as at activation: nothing is published before a full observation.

        Messages stay, as a topic that speaks once (a latched goal) will not repeat itself.
        """
        self._sampler.restart()
        self._has_published = False
        self._last = None
        self._last_tick_ns = None
        self._triggers = 0

    def _forget(self) -> None:
        """Takes nothing of what was before for known; the safe action stays owed."""
        has_published = self._has_published
        self.restart()
        self._sampler.clear()
        self._has_published = has_published

    def _safe(self, t_ns: int, status: Status, detail: str, ages_s: Mapping[str, float]) -> Command:
        safe = self.contract.action_safe
        if not self._has_published:
            return Command(t_ns, status, detail, safe, {}, ages_s)
        return self._publish(t_ns, status, detail, safe, ages_s)

    def _publish(
        self, t_ns: int, status: Status, detail: str, action: Array, ages_s: Mapping[str, float]
    ) -> Command:
        self._last = (t_ns, action)
        self._has_published = True
        payloads = {alias: output.write(t_ns, action) for alias, output in self._writers.items()}
        return Command(t_ns, status, detail, action, payloads, ages_s)


class _Output:
    """Writes the messages of one command topic."""

    def __init__(self, contract: Contract, types: Typestore, alias: str) -> None:
        topic = contract.topics[alias]
        actions = [action for action in contract.actions if action.topic == alias]
        names = [name for action in actions for name in contract.components(action.name)]
        self._columns = np.array([contract.action_names.index(name) for name in names])
        header = message_tree(types, topic.type, "cdr").field("header")
        self._stamped = isinstance(header, Struct) and header.name == "std_msgs/msg/Header"
        paths = [action.path for action in actions] + (STAMP if self._stamped else [])
        self._writer = Writer(types, topic.type, paths, topic.constants)

    def write(self, t_ns: int, action: Array) -> bytes:
        values = action[self._columns]
        if self._stamped:
            values = np.concatenate([values, np.divmod(t_ns, SECOND_NS)])
        return self._writer.write(values)
