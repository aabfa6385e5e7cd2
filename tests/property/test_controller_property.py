"""Whatever happens to a controller, what it publishes is bounded, or declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iql_ros.contract import Contract
from iql_ros.control.command import Command
from iql_ros.control.status import Status
from iql_ros.errors import LogError
from iql_ros.wire import Reader
from tests.bags import MS
from tests.robot_life import TYPES, Happening, Robot, contract, healthy, number, point

READER = Reader(TYPES, "geometry_msgs/msg/Twist", ["linear.x", "linear.y"])
INPUTS = {
    "state": Reader(TYPES, "geometry_msgs/msg/PointStamped", ["point.x"]),
    "goal": Reader(TYPES, "std_msgs/msg/Float64", ["data"]),
}
ENABLE = {"topic": "joy", "path": "data", "at_least": 0.5}
FALLBACKS: list[dict[str, Any]] = [
    {"fallback": "safe"},
    {"fallback": "hold", "hold_s": 0.15},
    {"fallback": "zero"},
    {"fallback": "ramp"},
    {"fallback": "ramp", "ramp_s": 0.5},
    {"fallback": "silent", "silent_after_s": 0.1},
]


def raises(observation: np.ndarray) -> Any:
    raise RuntimeError("out of memory")


numbers = st.floats() | st.floats(-3, 3)
answers = (
    st.tuples(numbers, numbers)
    | st.tuples(st.floats(-3, 3), st.floats(-3, 3))
    | st.sampled_from(
        [(0.0,), (0.0, 0.0, 0.0), (), raises, lambda _: "no array", lambda _: None, lambda o: o]
    )
)
waits = st.sampled_from([0, 1, 10, 10, 50, 50, 120, 300, 2_000, 86_400_000, -1, -700, -3_600_000])
speeds = st.just(1.0) | st.floats()
junk = st.binary(max_size=60) | st.builds(
    lambda whole, cut: whole[:cut],
    st.sampled_from([number(1.0), point(0, 1.0), number(np.nan)]),
    st.integers(0, 60),
)
happenings = st.one_of(
    st.builds(Happening, st.sampled_from(["state", "goal", "joy"]), waits, numbers),
    st.builds(Happening, st.just("tick"), waits, speeds, answers, st.sampled_from([0.1, 30.0])),
    st.builds(
        Happening,
        st.sampled_from(["overdue", "halt", "release", "release", "restart", "stop"]),
        waits,
    ),
    st.builds(
        Happening,
        st.just("bytes"),
        waits,
        alias=st.sampled_from(["state", "goal", "joy", "unknown"]),
        junk=junk,
    ),
    # Health, in pieces, so that the policy acts often enough for the rest to matter.
    st.builds(lambda n, answer: list(healthy(0.05 * n, answer=answer)), st.integers(1, 5), answers),
)
lives = st.lists(happenings, max_size=25).map(
    lambda parts: [h for part in parts for h in (part if isinstance(part, list) else [part])]
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "recover_after": st.sampled_from([2, "manual"]),
        "support": st.sampled_from(
            [{"action": action, "persistence": 2} for action in ("warn", "slow", "fallback")]
        ),
        "policy_budget_s": st.just(0.01),
        "blend_s": st.sampled_from([0.05, 0.3]),
        "enable": st.just(ENABLE),
    },
)


def heard(happening: Happening) -> set[str]:
    """The topic that a happening gives a value to."""
    if happening.kind in ("state", "goal"):
        return {happening.kind}
    reader = INPUTS.get(happening.alias) if happening.kind == "bytes" else None
    try:
        is_read = reader is not None and reader.read(happening.junk) is not None
    except LogError:
        is_read = False
    return {happening.alias} if is_read else set()


class Witness:
    """Sees what goes over the wire and checks it against the contract alone."""

    def __init__(self, toy: Contract) -> None:
        self.contract = toy
        self.last: np.ndarray | None = None
        self.last_ns = 0
        self.spoken: set[str] = set()
        self.has_acted = False

    def restart(self) -> None:
        self.last, self.has_acted = None, False

    def see(self, command: Command) -> None:
        # After a pause, as long as a silence that makes a tick overdue, no slew is made up for.
        dt_s = min(0.2, max(0, command.t_ns - self.last_ns) / 1e9)
        self.last_ns = command.t_ns
        if not command.payloads:
            if self.has_acted and self.contract.safety.fallback == "silent":
                self.last = None
            else:
                assert not self.has_acted
            return
        values = READER.read(command.payloads["cmd"])
        assert values is not None
        assert np.isfinite(values).all()
        assert (values >= self.contract.action_low).all()
        assert (values <= self.contract.action_high).all()
        if command.status.acts:
            assert self.spoken >= {"state", "goal"}
            self.has_acted = True
            self._check_slew(values, dt_s)
        else:
            assert self.has_acted
            self._check_declared(command, values, dt_s)
        self.last = values

    def _check_slew(self, values: np.ndarray, dt_s: float) -> None:
        if self.last is None:  # begins where the robot is: the safe speed
            assert values[0] == self.contract.action_safe[0]
            return
        reach = self.contract.action_slew * dt_s
        # 1e-12: adding a step and taking it away again rounds.
        assert (np.abs(values - self.last) <= reach * (1 + 1e-12) + 1e-12).all()

    def _check_declared(self, command: Command, values: np.ndarray, dt_s: float) -> None:
        safe = self.contract.action_safe
        if np.array_equal(values, safe):
            assert self.contract.safety.fallback != "zero" or command.status in (
                Status.HALTED,
                Status.WAITING,
            )
            return
        assert command.status is not Status.HALTED
        match self.contract.safety.fallback:
            case "hold":
                assert command.status is not Status.DISABLED
                np.testing.assert_array_equal(values, self.last)
            case "zero":
                np.testing.assert_array_equal(values, 0)
            case "ramp":
                self._check_slew(values, dt_s)
                assert self.last is not None
                assert (np.abs(values - safe) <= np.abs(self.last - safe)).all()
            case other:
                pytest.fail(f"{other} published {values}")


@pytest.mark.parametrize("fallback", FALLBACKS, ids=lambda f: "-".join(map(str, f.values())))
@settings(max_examples=60, deadline=None)
@given(rules=rules, life=lives)
def test_whatever_happens_the_command_is_bounded_or_declared(
    fallback: dict[str, Any], rules: dict[str, Any], life: list[Happening]
) -> None:
    topics = contract().canonical()["topics"]
    topics["goal"]["frozen_s"] = 0.5
    toy = contract({**fallback, **rules}, topics=topics)
    robot, witness = Robot(toy), Witness(toy)
    for happening in life:
        if happening.kind == "restart":
            witness.restart()
        witness.spoken |= heard(happening)
        command = robot.live(happening)
        if command is not None:
            witness.see(command)


def test_the_lives_of_the_property_do_act() -> None:
    """Else the property would hold of a controller that never moves."""
    robot = Robot(contract())
    commands = [robot.live(happening) for happening in healthy(1.0)]
    assert sum(c is not None and c.status.acts for c in commands) == 20
    assert robot.t_ns > 900 * MS
