"""An action that is one of a few values: its contract, its envelope, its commands, its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ros.contract import Contract, first_difference, load_contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.control.status import Status
from iql_ros.controller import Controller
from iql_ros.envelope import Envelope
from iql_ros.errors import ContractError
from iql_ros.fields import FieldPlan
from iql_ros.sampler import SECOND_NS, Messages
from iql_ros.wire import Reader, make_types
from tests.bags import MS, float64, payload
from training.conversion.steps import make_steps
from training.conversion.topics import Recording

TYPES = make_types({})
GEARS = [-1.5, 0.0, 0.1, 4.0]
ACTION = {"name": "gear", "topic": "cmd", "path": "data", "choices": GEARS, "safe": 0.0}


def contract(action: dict[str, Any] | None = None, **changes: Any) -> Contract:
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 10},
        "topics": {
            "state": {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.25},
            "cmd": {"topic": "/cmd", "type": "std_msgs/msg/Float64"},
        },
        "observations": [{"name": "x", "topic": "state", "path": "data"}],
        "actions": [action or ACTION],
        "reward": {"expression": "next_x"},
    }
    return Contract.model_validate({**base, **changes})


# -- the contract ------------------------------------------------------------------------


def test_choices_are_the_limits_and_part_of_the_identity() -> None:
    toy = contract()
    assert toy.choices is not None
    assert toy.choices.tolist() == GEARS
    assert (toy.action_low[0], toy.action_high[0]) == (-1.5, 4.0)
    assert Contract.from_json(toy.canonical_json()).digest() == toy.digest()
    other = contract({**ACTION, "choices": [-1.5, 0.0, 0.2, 4.0]})
    assert first_difference(toy, other) == "actions[gear].choices[2]: 0.1 against 0.2"


def test_without_choices_nothing_changes_in_the_identity() -> None:
    plain = contract({**_without("choices"), "limits": [-1, 1]})
    assert plain.choices is None
    assert "choices" not in plain.canonical_json()


def _without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ACTION.items() if key not in keys}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (_without("choices"), "give either limits or choices, not both and not neither"),
        ({**ACTION, "limits": [-1.5, 4]}, "give either limits or choices, not both"),
        ({**ACTION, "slew": 2.0}, "slew does not go with choices: a value between"),
        ({**ACTION, "safe": 0.05}, r"safe = \[0.05\] must be one of the choices \[-1.5, 0.0"),
        ({**ACTION, "choices": [0.0]}, "at least 2 items"),
        ({**ACTION, "choices": [0, 4, 0.003]}, "choices 0.0 and 0.003 are nearer than 0.001 of"),
        ({**ACTION, "choices": [0, 4, 4]}, "choices 4.0 and 4.0 are nearer than"),
    ],
)
def test_choices_that_make_no_sense_are_refused(action: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract(action)


def test_a_discrete_action_stands_alone() -> None:
    two = [ACTION, {"name": "v", "topic": "cmd", "path": "data", "limits": [0, 1], "safe": 0}]
    message = r"action 'gear' has choices, so it must be the contract's only action component.* 2: "
    with pytest.raises(ValueError, match=message):
        contract(actions=two)


def test_silence_cannot_mean_a_zero_that_is_no_choice() -> None:
    silent = {"topic": "/cmd", "type": "std_msgs/msg/Float64", "on_silence": "zero"}
    state = {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.25}
    push = {**ACTION, "choices": [-10, 10], "safe": 10}
    with pytest.raises(ValueError, match="on_silence of topic 'cmd' is zero, which is none of its"):
        contract(push, topics={"state": state, "cmd": silent})


def test_a_file_with_choices_names_the_line_of_what_is_amiss(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "examples" / "cartpole" / "contract.yaml").read_text()
    path = tmp_path / "cart.yaml"
    path.write_text(text)
    assert load_contract(path).choices is not None
    path.write_text(text.replace("safe: -10", "safe: 0"))
    with pytest.raises(ContractError, match=r"cart.yaml:\d+: actions\[0\].*safe = \[0.0\] must be"):
        load_contract(path)


# -- on the robot ------------------------------------------------------------------------


@given(st.floats(allow_nan=True, allow_infinity=True), st.none() | st.sampled_from(GEARS))
def test_whatever_the_policy_gives_a_choice_is_published(value: float, last: float | None) -> None:
    toy = contract()
    previous = None if last is None else np.array([last])
    result = Envelope(toy)(np.array([value]), previous, 0.1)
    assert result.action[0] in GEARS
    assert result.status in (Status.OK, Status.POLICY)


def test_a_rounded_choice_is_that_choice_and_a_value_between_two_is_a_fault() -> None:
    envelope = Envelope(contract())
    rounded = envelope(np.array([np.float32(0.1)], np.float64), None, 0.1)
    assert (rounded.action.tolist(), rounded.status) == ([0.1], Status.OK)
    between = envelope(np.array([0.09]), np.array([4.0]), 0.1)
    assert (between.action.tolist(), between.status) == ([0.0], Status.POLICY)
    assert between.detail == "the policy gave gear = 0.09 is none of [-1.5, 0.0, 0.1, 4.0]"


def test_of_choices_the_nearest_is_meant() -> None:
    numbers, is_choice = nearest_choice(np.array([-1.5, 3.9, np.nan, 0.1]), np.array(GEARS))
    assert numbers[[0, 1, 3]].tolist() == [0, 3, 2]
    assert is_choice.tolist() == [True, False, False, True]


def test_the_controller_publishes_the_choice_itself() -> None:
    controller = Controller(contract(), lambda x: np.float32([0.1]), TYPES)
    controller.put("state", 0, payload("std_msgs/msg/Float64", float64(1.0)))
    command = controller.tick(10 * MS)
    values = Reader(TYPES, "std_msgs/msg/Float64", ["data"]).read(command.payloads["cmd"])
    assert command.status is Status.OK
    assert values is not None
    assert values[0] == 0.1  # and not the float32 beside it


def test_a_choice_that_the_message_cannot_hold_is_refused_when_the_controller_is_made() -> None:
    topics = {
        "state": {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.25},
        "cmd": {"topic": "/cmd", "type": "std_msgs/msg/Int8"},
    }
    whole = contract({**ACTION, "choices": [-3, 0, 5]}, topics=topics)
    assert Controller(whole, lambda x: x, TYPES).contract is whole
    with pytest.raises(ContractError, match=r"action 'gear': choice -1.5 reads \[-2.\] in its"):
        Controller(contract(topics=topics), lambda x: x, TYPES)


# -- conversion --------------------------------------------------------------------------


def test_steps_with_a_command_that_is_no_choice_are_dropped_and_told() -> None:
    toy = contract()
    t_ns = np.arange(0, 4 * SECOND_NS, SECOND_NS // 10)
    commands = np.resize(np.float32(GEARS), len(t_ns)).astype(np.float64)
    commands[[7, 8, 20]] = [0.05, 3.0, 0.05]
    state = Messages(t_ns, t_ns, np.arange(len(t_ns), dtype=np.float64)[:, None])
    cmd = Messages(t_ns + 1, t_ns + 1, commands[:, None])
    recording = Recording("log", [{"state": state, "cmd": cmd}], [np.zeros(0, np.int64)])

    steps = make_steps(toy, FieldPlan(toy, ["x"]), recording)

    assert steps.facts["dropped_no_choice"] == 3
    assert set(np.unique(steps.actions)) == set(np.float32(GEARS).astype(np.float64))
    assert np.flatnonzero(steps.timeouts).tolist()[:-1] == [6, 17]
    (told,) = [finding for finding in recording.findings if "choices" in finding]
    assert told == (
        "action 'gear': 3 of 39 commands are none of its choices [-1.5, 0.0, 0.1, 4.0] "
        "(0.05, 3): those steps are dropped"
    )
