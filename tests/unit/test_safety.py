"""Each rule of a contract's safety block, on a controller with real payloads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from iql_ros.contract import Contract
from iql_ros.contracts.safety import check_speed
from iql_ros.control.command import Command
from iql_ros.control.status import Status
from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.sampler import MAX_AHEAD
from iql_ros.wire import Reader
from tests.robot_life import TYPES, Happening, Robot, contract, healthy, number, point

READER = Reader(TYPES, "geometry_msgs/msg/Twist", ["linear.x", "linear.y"])
SAFE = [0.25, 0.5]
ENABLE = {"topic": "joy", "path": "data", "at_least": 0.5}
BAD = replace(Happening("tick", 50, 1.0), answer=(np.nan, 0.0))


def lived(robot: Robot, life: Any) -> list[Command]:
    commands = [robot.live(happening) for happening in life]
    return [command for command in commands if command is not None]


def values(command: Command) -> list[float]:
    read = READER.read(command.payloads["cmd"])
    assert read is not None
    return [round(value, 6) for value in read.tolist()]


def moving(safety: dict[str, Any], **changes: Any) -> Robot:
    """A robot whose policy has acted for a second: speed 1, position 0.3."""
    robot = Robot(contract(safety, **changes))
    last = lived(robot, healthy(1.0))[-1]
    assert (last.status, values(last)) == (Status.OK, [1.0, 0.3])
    return robot


def after_fault(safety: dict[str, Any], ticks: int) -> list[list[float] | None]:
    """What is published in `ticks` faulty ticks of 50 ms."""
    commands = lived(moving(safety), [BAD] * ticks)
    return [values(command) if command.payloads else None for command in commands]


# -- fallback ------------------------------------------------------------------------


def test_without_a_safety_block_a_fault_gives_the_safe_action_at_once() -> None:
    assert after_fault({}, 2) == [SAFE, SAFE]


def test_hold_keeps_the_last_command_for_its_time_and_no_longer() -> None:
    held = after_fault({"fallback": "hold", "hold_s": 0.1}, 4)
    assert held == [[1.0, 0.3], [1.0, 0.3], SAFE, SAFE]


def test_zero_is_zero() -> None:
    assert after_fault({"fallback": "zero"}, 1) == [[0.0, 0.0]]


def test_a_ramp_goes_to_the_safe_action_at_the_slew() -> None:
    # 5 per second in ticks of 50 ms; the position may move 2.5 and is there at once.
    assert after_fault({"fallback": "ramp"}, 4) == [[0.75, 0.5], [0.5, 0.5], SAFE, SAFE]


def test_a_ramp_takes_no_less_than_its_time() -> None:
    ramp = after_fault({"fallback": "ramp", "ramp_s": 0.2}, 5)
    assert ramp[0] == [0.8125, 0.35]
    assert ramp[3:] == [SAFE, SAFE]


def test_silent_says_the_safe_action_once_and_then_nothing() -> None:
    assert after_fault({"fallback": "silent"}, 3) == [SAFE, None, None]
    assert after_fault({"fallback": "silent", "silent_after_s": 0.06}, 3) == [SAFE, SAFE, None]


def test_after_silence_the_robot_begins_where_it_is_measured() -> None:
    robot = moving({"fallback": "silent"})
    lived(robot, [BAD] * 5)
    assert not robot.controller.stop(robot.t_ns).payloads
    back = lived(robot, healthy(0.1))
    assert back[0].status is Status.SLEWED
    assert values(back[0]) == [0.25, 0.0]  # x was 0, the speed is the safe one


# -- recovery ------------------------------------------------------------------------


def test_the_policy_acts_again_after_so_many_sound_ticks() -> None:
    robot = moving({"recover_after": 3})
    lived(robot, [BAD])
    statuses = [command.status for command in lived(robot, healthy(0.2))]
    assert statuses[:2] == [Status.RECOVERING] * 2
    assert statuses[2].acts


def test_a_fault_while_it_recovers_begins_the_count_anew() -> None:
    robot = moving({"recover_after": 3})
    lived(robot, [BAD, *healthy(0.1), BAD])
    again = lived(robot, healthy(0.15))
    assert [command.status.acts for command in again] == [False, False, True]
    assert again[1].detail == "sound tick 2 of 3"


def test_a_manual_recovery_waits_for_a_person_and_for_soundness() -> None:
    robot = moving({"recover_after": "manual"})
    lived(robot, [BAD])
    waiting = lived(robot, healthy(1.0))
    assert {command.status for command in waiting} == {Status.RECOVERING}
    assert waiting[-1].detail == "sound again: release the policy by hand"
    robot.controller.release()
    assert lived(robot, [BAD])[0].status is Status.POLICY
    assert lived(robot, healthy(0.1))[-1].status is Status.RECOVERING  # released too early
    robot.controller.release()
    assert lived(robot, healthy(0.05))[0].status.acts


def test_a_start_needs_no_release() -> None:
    robot = Robot(contract({"recover_after": "manual"}))
    assert lived(robot, [Happening("tick")])[0].status is Status.WAITING
    assert lived(robot, healthy(0.05))[0].status.acts


# -- emergency stop ------------------------------------------------------------------


def test_a_halt_is_the_safe_action_at_once_whatever_the_fallback() -> None:
    robot = moving({"fallback": "hold"})
    command = robot.controller.halt("red button", robot.t_ns)
    assert (command.status, values(command)) == (Status.HALTED, SAFE)
    assert command.detail == "emergency stop: red button"
    assert robot.controller.halted == "red button"


def test_a_halt_stays_through_health_and_restart_until_it_is_released() -> None:
    robot = moving({})
    robot.live(Happening("halt"))
    assert {command.status for command in lived(robot, healthy(0.5))} == {Status.HALTED}
    robot.live(Happening("restart"))
    assert not any(command.payloads for command in lived(robot, healthy(0.2)))
    robot.live(Happening("release"))
    assert lived(robot, healthy(0.1))[-1].status.acts


def test_what_was_halted_is_not_held_after_the_release() -> None:
    robot = moving({"fallback": "hold", "hold_s": 10, "recover_after": 2})
    lived(robot, [Happening("halt"), Happening("release")])
    command = lived(robot, healthy(0.05))[0]
    assert (command.status, values(command)) == (Status.RECOVERING, SAFE)


# -- the enable switch -----------------------------------------------------------------


def test_only_a_held_switch_lets_the_policy_act() -> None:
    robot = moving({"enable": ENABLE})
    released = lived(robot, [Happening("joy", value=0.0), BAD])
    assert released[-1].status is Status.DISABLED
    assert released[-1].detail == "the enable switch is released: data is 0"
    assert values(released[-1]) == SAFE
    assert lived(robot, healthy(0.05))[0].status.acts


def test_a_switch_that_was_lost_or_cannot_be_read_counts_as_released() -> None:
    robot = moving({"enable": ENABLE})
    fresh = [Happening("state", 1), Happening("goal", 1), Happening("tick", 1, 1.0)]
    lost = lived(robot, [Happening("overdue", 520), *fresh])[-1]
    assert lost.detail == "the enable switch is 0.53 s old, limit 0.50 s: is /joy publishing?"
    junk = [Happening("bytes", alias="joy", junk=b"\0"), *fresh]
    assert lived(robot, [*healthy(0.1), *junk])[-1].detail == (
        "the enable switch cannot be read: /joy lacks data"
    )


def test_a_switch_that_never_spoke_keeps_the_robot_still() -> None:
    robot = Robot(contract({"enable": {"topic": "joy", "path": "data", "equals": 1.0}}))
    life = [happening for happening in healthy(0.2) if happening.kind != "joy"]
    commands = lived(robot, life)
    assert not any(command.payloads for command in commands)
    assert commands[-1].detail == "the enable switch has not spoken: is /joy publishing?"


def test_a_released_switch_is_not_held() -> None:
    robot = moving({"fallback": "hold", "hold_s": 5, "enable": ENABLE})
    assert values(lived(robot, [Happening("joy", value=0.0), BAD])[0]) == SAFE


# -- support, budget, frozen ---------------------------------------------------------


def outside(action: str) -> list[Command]:
    """Three ticks at a distance of 5, where 3 is the limit."""
    robot = moving({"support": {"action": action, "persistence": 2, "speed": 0.5}})
    life = [replace(h, value=5.0) if h.kind == "goal" else h for h in healthy(0.15)]
    return lived(robot, life)


def test_outside_of_the_data_the_contract_says_what_happens() -> None:
    assert [c.status for c in outside("warn")] == [Status.OK, Status.UNUSUAL, Status.UNUSUAL]
    assert values(outside("warn")[2]) == [1.0, 0.3]
    slowed = outside("slow")
    assert slowed[1].status is Status.SLOWED
    # Half of the way from the safe speed; at the slew of 5 per second it takes two ticks.
    assert values(slowed[2])[0] == 0.625
    fallen = outside("fallback")
    assert [c.status for c in fallen] == [Status.OK, Status.OUTSIDE, Status.OUTSIDE]
    assert fallen[1].detail == "outside of the training data: distance 5, limit 3"
    assert values(fallen[1]) == SAFE
    assert fallen[1].distance == pytest.approx(5.0, abs=0.01)  # x and its past are below 0.1


def test_a_support_check_without_statistics_is_refused() -> None:
    toy = contract({"support": {"action": "warn"}})
    with pytest.raises(ContractError, match=r"safety\.support\.action is warn, but there are no"):
        Controller(toy, lambda observation: observation, TYPES)


def test_a_late_answer_is_used_and_too_many_in_a_row_are_a_fault() -> None:
    robot = moving({"policy_budget_s": 0.01, "overruns": 2})
    late = lived(robot, healthy(0.1, took_ms=25.0))
    assert (late[0].status, values(late[0])) == (Status.LATE, [1.0, 0.3])
    assert late[0].detail == "the policy took 25 ms, budget 10 ms"
    assert (late[1].status, values(late[1])) == (Status.BUDGET, SAFE)
    assert lived(robot, healthy(0.05))[0].status.acts


def test_a_topic_that_repeats_itself_is_frozen() -> None:
    topics = contract().canonical()["topics"]
    topics["state"]["frozen_s"] = 0.3
    robot = moving({}, topics=topics)
    stuck = [replace(h, value=7.0) if h.kind == "state" else h for h in healthy(0.5)]
    commands = lived(robot, stuck)
    assert [command.status.acts for command in commands] == [True] * 6 + [False] * 4
    assert commands[-1].status is Status.FROZEN
    assert "/state has repeated the same values for 0." in commands[-1].detail
    assert lived(robot, healthy(0.05))[0].status.acts


def test_a_number_too_large_for_float32_never_reaches_the_policy() -> None:
    robot = moving({})
    life = [*list(healthy(0.05))[:-1], Happening("goal", value=1e300), Happening("tick", 1, 1.0)]
    command = lived(robot, life)[-1]
    assert command.status is Status.NOT_FINITE
    assert command.detail == "field 'goal' is 1e+300: not finite in float32"


# -- speed and blend -----------------------------------------------------------------


def test_speed_is_a_share_of_the_way_from_rest() -> None:
    robot = moving({})
    half = lived(robot, healthy(0.5, value=0.5))[-1]
    # Rest is the safe speed 0.25, and the measured position, now x = 0.09.
    assert (half.status, values(half)) == (Status.SLOWED, [0.625, 0.195])
    assert values(lived(robot, healthy(0.5, value=0.0))[-1]) == [0.25, 0.09]


@pytest.mark.parametrize("speed", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused_and_counts_as_0_in_a_tick(speed: float) -> None:
    with pytest.raises(ContractError, match=r"speed = .* must be 0 to 1"):
        check_speed(contract(), speed)
    robot = moving({})
    assert values(lived(robot, healthy(0.5, value=speed))[-1]) == [0.25, 0.09]


def test_a_blend_begins_where_the_robot_is_and_ends_at_the_policys_command() -> None:
    robot = Robot(contract({"blend_s": 0.2}))
    commands = lived(robot, healthy(0.3, value=1.0, answer=(0.45, 0.4)))
    assert [command.status for command in commands] == [Status.BLENDING] * 4 + [Status.OK] * 2
    assert [values(c) for c in commands] == [
        [0.25, 0.0],  # the safe speed, the measured position
        [0.3, 0.1],
        [0.35, 0.2],
        [0.4, 0.3],
        [0.45, 0.4],
        [0.45, 0.4],
    ]


def test_a_recovery_blends_from_the_last_command() -> None:
    robot = moving({"blend_s": 0.2})
    lived(robot, [BAD])
    back = lived(robot, healthy(0.15))
    assert back[0].status is Status.BLENDING
    assert values(back[0]) == SAFE
    assert values(back[2])[0] == pytest.approx(0.25 + 0.5 * 0.75)


# -- time ----------------------------------------------------------------------------


def test_a_clock_that_goes_back_under_a_dead_trigger_is_noticed_at_once() -> None:
    robot = moving({})
    command = lived(robot, [Happening("overdue", -3_600_000)])[0]
    assert (command.status, values(command)) == (Status.STALE, SAFE)
    assert command.detail == "the clock went back: is /state publishing?"


HOUR_MS = 3_600_000


def test_slew_does_not_make_up_for_a_clock_that_was_set_ahead() -> None:
    robot = moving({})
    fresh = [Happening("state", HOUR_MS, value=0.1), Happening("goal", 0, value=0.5)]
    command = lived(robot, [*fresh, Happening("tick", 1, 1.0, answer=(-2.0, 0.3))])[-1]
    # 5 per second for the 0.2 s after which the trigger counts as silent.
    assert (command.status, values(command)) == (Status.SLEWED, [0.0, 0.3])


def test_slew_at_a_rate_makes_up_for_one_late_tick_and_no_more() -> None:
    robot = moving({}, tick={"rate_hz": 20})
    fresh = [Happening("state", 3_000, value=0.1), Happening("goal", 0, value=0.5)]
    command = lived(robot, [*fresh, Happening("tick", 1, 1.0, answer=(-2.0, 0.3))])[-1]
    assert (command.status, values(command)) == (Status.SLEWED, [0.5, 0.3])


def test_a_ramp_does_not_end_with_a_clock_that_was_set_ahead() -> None:
    robot = moving({"fallback": "ramp", "ramp_s": 1.0})
    commands = lived(robot, [BAD, replace(BAD, wait_ms=HOUR_MS), BAD])
    assert [values(c)[0] for c in commands] == [0.9625, 0.8125, 0.775]


def test_a_blend_does_not_end_with_a_clock_that_was_set_ahead() -> None:
    robot = Robot(contract({"blend_s": 1.0}))
    lived(robot, healthy(0.2))
    fresh = [Happening("state", HOUR_MS, value=0.1), Happening("goal", 0, value=0.5)]
    command = lived(robot, [*fresh, Happening("tick", 1, 1.0, answer=(1.0, 0.3))])[-1]
    assert command.status is Status.BLENDING
    assert lived(robot, healthy(1.0))[-1].status is Status.OK


def test_messages_of_before_a_jump_back_are_not_used_after_it() -> None:
    robot = moving({})
    robot.live(Happening("restart"))
    robot.live(Happening("goal", -60_000, 0.5))  # seen while inactive
    command = lived(robot, [Happening("tick", 1, 1.0)])[0]
    assert command.status is Status.WAITING


def test_what_was_stamped_ahead_is_not_taken_for_fresh_when_its_time_has_come() -> None:
    robot, seen = Robot(contract()), list[float]()

    def policy(observation: np.ndarray) -> np.ndarray:
        seen.append(float(observation[0]))
        return np.zeros(2, np.float32)

    for k in range(400):  # a clock 10 s ahead is set right after 6 s
        robot.t_ns += 50 * 1_000_000
        ahead_ns = 9_965_000_000 if k < 100 else 0
        value = 9.0 if k < 100 else 0.5
        robot.controller.put("state", robot.t_ns, point(robot.t_ns + ahead_ns, value))
        lived(robot, [Happening("goal", 0, 0.5), Happening("tick", 10, 1.0, answer=policy)])
    assert len(seen) > 250
    assert set(seen) == {0.5}


def test_messages_that_nobody_samples_do_not_pile_up() -> None:
    robot = Robot(contract())
    for i in range(3 * MAX_AHEAD):
        robot.controller.put("goal", robot.t_ns + i, number(i))
        robot.controller.put("state", robot.t_ns + i, point(robot.t_ns + 10**12, 0.0))
    topics = robot.controller.snapshot()["inbox"]["sampler"]["topics"]
    assert len(topics["goal"][2]) <= MAX_AHEAD
    assert len(topics["state"][2]) <= MAX_AHEAD


# -- the contract ----------------------------------------------------------------------


def test_a_block_of_defaults_changes_no_digest() -> None:
    plain = contract()
    spelled = contract({"fallback": "safe", "recover_after": 1, "support": {"action": "off"}})
    assert spelled.digest() == plain.digest()
    assert "safety" not in plain.canonical()
    assert contract({"blend_s": 0.1}).digest() != plain.digest()
    again = Contract.from_json(contract({"blend_s": 0.1, "enable": ENABLE}).canonical_json())
    assert again.safety.enable is not None


CHOICES = {"name": "gear", "topic": "cmd", "path": "linear.x", "choices": [1, 2], "safe": 1}


@pytest.mark.parametrize(
    ("safety", "changes", "text"),
    [
        ({"hold_s": 1}, {}, "hold_s belongs to fallback: hold, here it is safe"),
        ({"recover_after": 0}, {}, "recover_after = 0 must be 1 or more, or manual"),
        ({"enable": {"topic": "joy", "path": "data"}}, {}, "give either equals or at_least"),
        ({"enable": {**ENABLE, "topic": "pad"}}, {}, "safety.enable names topic 'pad', declared"),
        ({"enable": {**ENABLE, "topic": "cmd"}}, {}, "topic 'cmd' is the enable switch, so it n"),
        ({"enable": {**ENABLE, "path": "axes[0:2]"}}, {}, "names 2 values, a switch has one"),
        ({"fallback": "zero"}, {"actions": [CHOICES]}, "safety.fallback is zero, which action 'g"),
        ({"blend_s": 1}, {"actions": [CHOICES]}, "safety.blend_s needs values between the choic"),
        (
            {"fallback": "ramp"},
            {"actions": [{**CHOICES, "choices": None, "limits": [0, 2]}]},
            "safety.fallback is ramp, but action 'gear' has no slew",
        ),
        (
            {},
            {"actions": [{**CHOICES, "choices": None, "limits": [0, 2], "measured_by": "y"}]},
            "action 'gear' is measured by 'y', which is no observation: there are before, goal, x",
        ),
        (
            {},
            {"actions": [{**CHOICES, "choices": None, "limits": [0, 2], "measured_by": "before"}]},
            "action 'gear' has 1 components, but 'before', which is to measure it, has 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    safety: dict[str, Any], changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        contract(safety, **changes)
    assert text in str(caught.value)


def test_choices_are_slowed_to_the_safe_one_or_not_at_all() -> None:
    toy = contract(actions=[CHOICES])
    check_speed(toy, 1.0)
    with pytest.raises(ContractError, match=r"speed = 0.5, but action 'gear' has choices"):
        check_speed(toy, 0.5)
    gear = Reader(TYPES, "geometry_msgs/msg/Twist", ["linear.x"])
    for speed, wanted in [(1.0, 2.0), (0.0, 1.0), (0.5, 1.0)]:
        command = lived(Robot(toy), healthy(0.05, value=speed, answer=(2.0,)))[0]
        read = gear.read(command.payloads["cmd"])
        assert read is not None
        assert read[0] == wanted
