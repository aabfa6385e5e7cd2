"""The hold rule: what the policy sees at an instant, live and offline alike.

At t a topic's value is its message with the latest time among those that had arrived by t
and whose time is not after t. If that message is older than the contract's `max_age_s`, the
instant is not valid. `Sampler` applies the rule one message at a time on the robot,
`resample` to a whole log at once; a property test holds them equal to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.control.status import Status
from iql_ros.fields import FieldPlan, Frame
from iql_ros.finite import is_finite

Array = NDArray[np.float64]
Times = NDArray[np.int64]

SECOND_NS = 1_000_000_000
HOLE_S = 30.0
"""A grid of a fixed rate goes on for so long into a hole of the log."""
FOREVER_NS = int(np.iinfo(np.int64).max)
MAX_AHEAD = 1024
"""So many messages of a topic may wait for their stamps; a clock that is wrong sends more."""


@dataclass(frozen=True)
class Messages:
    """All messages of one topic, as rows of the wanted values.

    Attributes:
        arrival_ns: when each was received, shape (N,).
        stamp_ns: the time each counts for (by the topic's `clock`), shape (N,).
        rows: the values, shape (N, W); messages that lack a wanted element are not here.
        heard_ns: where `arrival_ns` is when they take effect, the receive times of all of the
            topic's, ascending, shape (M,); None where nothing was left out or put off.
    """

    arrival_ns: Times
    stamp_ns: Times
    rows: Array
    heard_ns: Times | None = None


@dataclass(frozen=True)
class Held:
    """What one topic holds at T instants: rows (T, W), ages (T,), and if there is a value."""

    rows: Array
    age_ns: Times
    exists: NDArray[np.bool_]


class Sample(NamedTuple):
    """What the policy sees at one instant.

    Attributes:
        observation: shape (O,), float64; NaN where unknown.
        status: OK, WAITING, STALE or NOT_FINITE.
        detail: why it may not be acted upon, naming the field; empty if it may.
        ages_s: by topic alias, the age of the message used.
    """

    t_ns: int
    observation: Array
    status: Status
    detail: str
    ages_s: Mapping[str, float]


def visible(messages: Messages, topic_holds: bool, max_age_ns: int = FOREVER_NS) -> Messages:
    """The messages in the order in which they take effect, each the latest so far.

    Args:
        messages: in any order.
        topic_holds: skip rows with a NaN or infinity (the topic's `on_nonfinite: hold`).
        max_age_ns: skip messages whose stamp lies further ahead of their arrival: what they tell
            of would be older than that when they take effect.

    Returns:
        Messages whose `arrival_ns` is the instant of taking effect (never before the stamp),
        ascending; a message with an earlier stamp than one already in effect is left out.
    """
    arrival = np.maximum(messages.arrival_ns, messages.stamp_ns)
    ascends = all((np.diff(t_ns) >= 0).all() for t_ns in (arrival, messages.stamp_ns))
    ahead_ns = messages.stamp_ns - messages.arrival_ns
    is_timely = bool((ahead_ns <= max_age_ns).all())
    heard = messages.arrival_ns
    if (np.diff(heard) < 0).any():
        heard = np.sort(heard)
    # As most logs are: a copy would cost their size in memory.
    if ascends and is_timely and not topic_holds:
        return Messages(arrival, messages.stamp_ns, messages.rows, heard)
    order = np.argsort(arrival, kind="stable")
    if not is_timely:
        order = order[ahead_ns[order] <= max_age_ns]
    if topic_holds:
        order = order[np.isfinite(messages.rows[order]).all(axis=1)]
    stamp = messages.stamp_ns[order]
    newest = stamp >= np.maximum.accumulate(stamp) if len(stamp) else np.zeros(0, bool)
    order = order[newest]
    return Messages(arrival[order], messages.stamp_ns[order], messages.rows[order], heard)


def hold(messages: Messages, t_ns: Times, *, before: bool = False) -> Held:
    """What a topic holds at each instant.

    Args:
        messages: as `visible` returns them.
        t_ns: the instants, shape (T,).
        before: only messages strictly before the instant (the rule of commands).
    """
    last = np.searchsorted(messages.arrival_ns, t_ns, side="left" if before else "right") - 1
    exists = last >= 0
    rows = np.full((len(t_ns), messages.rows.shape[1]), np.nan)
    rows[exists] = messages.rows[last[exists]]
    age = np.zeros(len(t_ns), np.int64)
    age[exists] = t_ns[exists] - messages.stamp_ns[last[exists]]
    return Held(rows, age, exists)


def ticks(contract: Contract, topics: Mapping[str, Messages]) -> Times:
    """Instants of the steps, shape (T,), ascending.

    The first is the first instant at which every topic in `topics` has a value; the last is
    not after the last message.

    Args:
        contract: its `tick` decides.
        topics: by alias, as `visible` returns them; each with at least one message.
    """
    start = max(messages.arrival_ns[0] for messages in topics.values())
    stop = max(messages.arrival_ns[-1] for messages in topics.values())
    if contract.tick.trigger is not None:
        trigger = topics[contract.tick.trigger]
        # The robot ticks when a message comes, also one whose stamp lies ahead of that.
        heard = trigger.arrival_ns if trigger.heard_ns is None else trigger.heard_ns
        return np.unique(heard[heard >= start][:: contract.tick.every])
    assert contract.tick.rate_hz is not None
    rate_hz = contract.tick.rate_hz
    offsets = [
        tick_offset(k, rate_hz)
        for begin, end in _busy(contract, topics, start, stop)
        for k in range(_first_tick(begin, rate_hz), _first_tick(end + 1, rate_hz))
    ]
    return np.int64(start) + np.array(offsets, np.int64)


def _busy(
    contract: Contract, topics: Mapping[str, Messages], start: int, stop: int
) -> list[tuple[int, int]]:
    """Stretches of time after `start`, in ns, that have messages; the last ends at `stop`.

    A clock that was set forward by days, or bags joined long after each other, must not cost
    an instant for every step in between. So much of a hole remains that all observations are
    stale in it: no step crosses it.
    """
    limits = [topic.max_age_s for topic in contract.topics.values() if topic.max_age_s is not None]
    rest = round((HOLE_S + max(limits, default=0.0)) * SECOND_NS)
    arrivals = [messages.arrival_ns for messages in topics.values()]
    edges = [np.concatenate([[start], t[t > start], [stop]]) for t in arrivals]
    if any((np.diff(edge) <= 2 * rest).all() for edge in edges):
        return [(0, int(stop - start))]
    arrival = np.unique(np.concatenate(edges))
    holes = np.flatnonzero(np.diff(arrival) > 2 * rest)
    begins = np.concatenate([arrival[:1], arrival[holes + 1]]) - start
    ends = np.concatenate([arrival[holes] + rest, arrival[-1:]]) - start
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _first_tick(offset_ns: int, rate_hz: float) -> int:
    """Number of the first step that begins `offset_ns` after step 0, or later."""
    k = max(0, int(offset_ns * rate_hz / SECOND_NS) - 2)
    while tick_offset(k, rate_hz) < offset_ns:
        k += 1
    return k


def tick_offset(k: int, rate_hz: float) -> int:
    """Time of step k after step 0 in ns, without adding up the rounding of a period."""
    return round(k * SECOND_NS / rate_hz)


@dataclass(frozen=True)
class Resampled:
    """Fields on the grid.

    Attributes:
        t_ns: instants, shape (T,).
        fields: by name, shape (T, components).
        valid: whether the instant may be used, shape (T,).
        stale, nonfinite: by topic alias (field name), how many instants it spoiled.
        ages_s: by topic alias, shape (T,).
    """

    t_ns: Times
    fields: Mapping[str, Array]
    valid: NDArray[np.bool_]
    stale: Mapping[str, int]
    nonfinite: Mapping[str, int]
    ages_s: Mapping[str, Array]


def resample(
    plan: FieldPlan, topics: Mapping[str, Messages], t_ns: Times, actions: Array
) -> Resampled:
    """Applies the hold rule to a whole log.

    Args:
        plan: the wanted fields.
        topics: by alias, as `visible` returns them.
        t_ns: instants, shape (T,).
        actions: what the command topics held just before each instant, shape (T, A); NaN
            rows, where there was no command, count as the safe action.
    """
    contract = plan.contract
    held = {alias: hold(topics[alias], t_ns) for alias in plan.paths}
    # The robot does not look at signals: they spoil an instant, but do not restart its memory.
    acted_on = contract.closure([field.name for field in contract.observations])
    heard = {contract.fields[name].topic for name in acted_on}
    stale: dict[str, int] = {}
    valid, sound = np.ones(len(t_ns), bool), np.ones(len(t_ns), bool)
    for alias, part in held.items():
        fresh = part.exists & (part.age_ns <= max_age_ns(contract, alias))
        stale[alias] = int((~fresh).sum())
        valid &= fresh
        if alias in heard:
            sound &= fresh
    fields = plan.compute({alias: part.rows for alias, part in held.items()})
    nonfinite: dict[str, int] = {}
    for name, values in fields.items():
        finite = np.isfinite(values).all(axis=1)
        nonfinite[name] = int((~finite & valid).sum())
        valid &= finite
        if name in acted_on:
            sound &= finite
    first = sound & ~np.concatenate([[False], sound[:-1]])
    fields |= _memory(plan, fields, first, actions)
    ages = {alias: part.age_ns / SECOND_NS for alias, part in held.items()}
    return Resampled(t_ns, fields, valid, stale, nonfinite, ages)


def max_age_ns(contract: Contract, alias: str) -> int:
    """Largest age of a message of the topic; a signal's topic may declare none."""
    max_age_s = contract.topics[alias].max_age_s
    return FOREVER_NS if max_age_s is None else round(max_age_s * SECOND_NS)


def _memory(
    plan: FieldPlan, fields: Mapping[str, Array], first: NDArray[np.bool_], actions: Array
) -> dict[str, Array]:
    """History and previous-action fields; memory restarts where a run of valid instants does.

    Args:
        plan: the wanted fields.
        fields: message and derived fields, each (T, w).
        first: the first instant of each run, shape (T,).
        actions: as for `resample`.
    """
    contract = plan.contract
    steps = np.arange(len(first))
    run_start = np.maximum.accumulate(np.where(first, steps, 0))
    memory: dict[str, Array] = {}
    for name in plan.names:
        field = contract.fields[name]
        if field.history_of is not None:
            lags = [np.maximum(steps - lag, run_start) for lag in range(1, field.steps + 1)]
            memory[name] = np.concatenate([fields[field.history_of][i] for i in lags], axis=1)
        elif field.previous_action:
            unknown = first | ~np.isfinite(actions).all(axis=1)
            memory[name] = np.where(unknown[:, None], contract.action_safe, actions)
    return memory


class Sampler:
    """The hold rule on the robot: takes messages as they arrive, gives a Sample at a tick."""

    def __init__(self, plan: FieldPlan) -> None:
        """Samples the fields of `plan`."""
        self._contract, self._names = plan.contract, plan.names
        self._topics = {alias: _LiveTopic(plan.contract, alias) for alias in plan.paths}
        self._frame = Frame(plan)
        fields = [plan.contract.fields[name] for name in plan.names]
        remembers = any(f.history_of is not None or f.previous_action for f in fields)
        self._depth = max([f.steps for f in fields if f.history_of is not None], default=1)
        self._places = None if remembers else self._frame.places(plan.names)
        self._past: list[dict[str, Array]] = []

    def put(self, alias: str, arrival_ns: int, stamp_ns: int, row: Array) -> None:
        """Takes one message.

        Args:
            alias: of its topic.
            arrival_ns: when it arrived, not before the one taken last.
            stamp_ns: the time it counts for.
            row: its values, shape (W,).
        """
        self._topics[alias].put(arrival_ns, stamp_ns, row)

    def restart(self) -> None:
        """Forgets earlier steps; history and previous action begin anew."""
        self._past = []

    def clear(self) -> None:
        """Forgets all messages and steps, as after a jump of the clock."""
        self.restart()
        for topic in self._topics.values():
            topic.clear()

    def snapshot(self) -> dict[str, Any]:
        """All that it remembers, in lists, dicts and arrays that no one writes to."""
        topics = {alias: topic.snapshot() for alias, topic in self._topics.items()}
        return {"topics": topics, "past": list(self._past)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on as the sampler that gave the snapshot would have."""
        for alias, topic in self._topics.items():
            topic.restore(snapshot["topics"][alias])
        self._past = list(snapshot["past"])

    def sample(self, t_ns: int, previous_action: Array | None) -> Sample:
        """What the policy sees at t; numpy's warnings are the caller's to silence.

        Args:
            t_ns: the instant, not before that of the previous call or the arrival of a message.
            previous_action: the last command, shape (A,); None if there was none.
        """
        topics, frame = self._topics, self._frame
        for alias, topic in topics.items():
            if not topic.advance(t_ns):
                return self._unusable(t_ns, Status.WAITING, self._missing_text(alias), {})
        ages_s = {alias: (t_ns - topic.stamp_ns) / SECOND_NS for alias, topic in topics.items()}
        for alias, topic in topics.items():
            if t_ns - topic.stamp_ns > topic.max_age_ns:
                stale = self._stale_text(alias, ages_s[alias])
                return self._unusable(t_ns, Status.STALE, stale, ages_s)
            frame.rows[alias][:] = topic.row
        frame.derive()
        if not is_finite(frame.values):
            return self._unusable(t_ns, Status.NOT_FINITE, self._nonfinite_text(), ages_s)
        if self._places is None:
            observation = self._with_memory(previous_action)
        else:
            observation = frame.values[self._places]
        return Sample(t_ns, observation, Status.OK, "", ages_s)

    def _with_memory(self, previous_action: Array | None) -> Array:
        """The observation where earlier steps are part of it; this one becomes such a step."""
        now = {name: values.copy() for name, values in self._frame.fields.items()}
        parts = [self._part(name, now, previous_action) for name in self._names]
        self._past = [now, *self._past[: self._depth - 1]]
        return np.concatenate(parts)

    def _part(self, name: str, now: Mapping[str, Array], previous_action: Array | None) -> Array:
        field = self._contract.fields[name]
        if field.history_of is not None:
            past = [step[field.history_of] for step in self._past[: field.steps]]
            oldest = past[-1] if past else now[field.history_of]
            return np.concatenate([*past, *[oldest] * (field.steps - len(past))])
        if field.previous_action:
            if not self._past or previous_action is None:
                return self._contract.action_safe
            return previous_action
        return now[name]

    def _unusable(
        self, t_ns: int, status: Status, detail: str, ages_s: Mapping[str, float]
    ) -> Sample:
        self._past = []
        nothing = np.full(self._contract.observation_size, np.nan)
        return Sample(t_ns, nothing, status, detail, ages_s)

    def _fields_of(self, alias: str) -> str:
        fields = self._contract.fields
        return ", ".join(n for n in self._contract.closure(self._names) if fields[n].topic == alias)

    def _missing_text(self, alias: str) -> str:
        topic = self._contract.topics[alias].absolute
        return f"field {self._fields_of(alias)!r} has no value yet: is {topic} publishing?"

    def _stale_text(self, alias: str, age_s: float) -> str:
        topic = self._contract.topics[alias]
        return (
            f"field {self._fields_of(alias)!r} is {age_s:.2f} s old, "
            f"limit {topic.max_age_s:.2f} s: is {topic.absolute} publishing?"
        )

    def _nonfinite_text(self) -> str:
        fields = self._frame.fields.items()
        name, values = next((name, values) for name, values in fields if not is_finite(values))
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        return f"field {self._contract.components(name)[bad]!r} is {values[bad]}: not finite"


class _LiveTopic:
    """The message in effect, and those whose stamps lie ahead of the clock.

    Attributes:
        max_age_ns: the largest age of a message.
        stamp_ns, row: of the message in effect; -1 if there is none.
    """

    def __init__(self, contract: Contract, alias: str) -> None:
        self.max_age_ns = max_age_ns(contract, alias)
        self._skips_nonfinite = contract.topics[alias].on_nonfinite == "hold"
        self.clear()

    def clear(self) -> None:
        self.stamp_ns = -1
        self.row: Array = np.zeros(0)
        self._pending: list[tuple[int, int, Array]] = []

    def put(self, arrival_ns: int, stamp_ns: int, row: Array) -> None:
        if stamp_ns - arrival_ns > self.max_age_ns or (
            self._skips_nonfinite and not is_finite(row)
        ):
            return
        if stamp_ns <= arrival_ns and not self._pending:  # it takes effect now
            if stamp_ns >= self.stamp_ns:
                self.stamp_ns, self.row = stamp_ns, row
            return
        if len(self._pending) >= MAX_AHEAD:  # nobody samples, as in an inactive node
            self.advance(arrival_ns)
        self._pending.append((max(arrival_ns, stamp_ns), stamp_ns, row))

    def snapshot(self) -> list[Any]:
        return [self.stamp_ns, self.row, [list(message) for message in self._pending]]

    def restore(self, snapshot: list[Any]) -> None:
        self.stamp_ns, self.row, pending = snapshot
        self._pending = [(effect_ns, stamp_ns, row) for effect_ns, stamp_ns, row in pending]

    def advance(self, t_ns: int) -> bool:
        """Lets the messages up to t take effect; returns whether there is a value."""
        if self._pending:
            self._pending.sort(key=lambda message: message[0])  # stable: the last of equals wins
            ahead: list[tuple[int, int, Array]] = []
            for message in self._pending:
                effect_ns, stamp_ns, row = message
                if effect_ns > t_ns:
                    ahead.append(message)
                elif stamp_ns >= self.stamp_ns:
                    self.stamp_ns, self.row = stamp_ns, row
            self._pending = ahead[: MAX_AHEAD // 2]
        return self.stamp_ns >= 0
