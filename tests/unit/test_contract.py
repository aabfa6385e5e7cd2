from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ros.contract import Contract, first_difference, load_contract
from iql_ros.errors import ContractError

ROVER = """\
format: 1
robot: rover
tick: {rate_hz: 20}
topics:
  odom: {topic: /odom, type: nav_msgs/Odometry, max_age_s: 0.2}
  joints: {topic: /joint_states, type: sensor_msgs/msg/JointState, max_age_s: 0.1}
  cmd: {topic: /cmd_vel, type: geometry_msgs/msg/Twist}
observations:
  - {name: speed, topic: odom, path: twist.twist.linear.x, unit: m/s, limits: [-1, 1]}
  - {name: q, topic: joints, path: "position[left,right]", limits: [[-1, 1], [-2, 2]]}
  - {name: gap, derive: difference, of: [place, home]}
  - {name: last, previous_action: true}
  - {name: before, history_of: speed, steps: 2}
signals:
  - {name: place, topic: odom, path: "pose.pose.position.{x,y}"}
  - {name: home, topic: odom, path: "pose.pose.position.{x,y}"}
actions:
  - {name: vx, topic: cmd, path: linear.x, limits: [-0.5, 0.5], slew: 2, safe: 0}
  - {name: wz, topic: cmd, path: angular.z, limits: [-1, 1], safe: 0}
reward: {expression: "-speed"}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "rover.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def rover(tmp_path: Path) -> Contract:
    return load_contract(write(tmp_path, ROVER))


def test_fields_become_named_components_in_the_order_of_the_file(rover: Contract) -> None:
    assert rover.observation_names == (
        "speed", "q_left", "q_right", "gap_x", "gap_y",
        "last_vx", "last_wz", "before_1", "before_2",
    )  # fmt: skip
    assert rover.action_names == ("vx", "wz")


def test_index_finds_components_and_whole_fields(rover: Contract) -> None:
    assert rover.index("q_right") == 2
    assert rover.index("q") == slice(1, 3)
    assert rover.index("wz") == 1
    with pytest.raises(ContractError, match=r"no observation or action 'height': there are speed"):
        rover.index("height")


def test_bounds_follow_the_components(rover: Contract) -> None:
    np.testing.assert_array_equal(rover.observation_low[:4], [-1, -1, -2, -np.inf])
    np.testing.assert_array_equal(rover.action_high, [0.5, 1])
    np.testing.assert_array_equal(rover.action_slew, [2, np.inf])
    with pytest.raises(ValueError, match="read-only"):
        rover.action_safe[0] = 1.0


def test_inputs_of_the_policy_leave_out_topics_of_signals_alone(tmp_path: Path) -> None:
    text = ROVER.replace("- {name: gap, derive: difference, of: [place, home]}\n  ", "").replace(
        "signals:", "signals:\n  - {name: done, topic: cmd, path: linear.z}"
    )
    contract = load_contract(write(tmp_path, text))
    assert contract.inputs(signals=False) == ("odom", "joints")
    assert contract.inputs(signals=True) == ("odom", "joints", "cmd")


def test_the_digest_is_that_of_the_meaning_not_of_the_spelling(tmp_path: Path) -> None:
    ours = load_contract(write(tmp_path, ROVER))
    respelled = ROVER.replace("rate_hz: 20", "rate_hz: 20.0").replace("slew: 2,", "slew: [2.0],")
    respelled = "description: words\n# comment\n" + respelled.replace(
        "nav_msgs/Od", "nav_msgs/msg/Od"
    )
    assert load_contract(write(tmp_path, respelled)).digest() == ours.digest()
    changed = ROVER.replace("max_age_s: 0.2", "max_age_s: 0.3")
    assert load_contract(write(tmp_path, changed)).digest() != ours.digest()


def test_a_contract_survives_its_own_json(rover: Contract) -> None:
    again = Contract.from_json(rover.canonical_json())
    assert again.digest() == rover.digest()
    assert first_difference(rover, again) is None


def test_the_first_difference_is_named_with_both_values(tmp_path: Path) -> None:
    ours = load_contract(write(tmp_path, ROVER))
    theirs = load_contract(write(tmp_path, ROVER.replace("linear.x, unit", "linear.y, unit")))
    assert first_difference(ours, theirs) == (
        "observations[speed].path: twist.twist.linear.x against twist.twist.linear.y"
    )
    fewer = load_contract(
        write(tmp_path, ROVER.replace("\n  - {name: before, history_of: speed, steps: 2}", ""))
    )
    assert first_difference(ours, fewer) == "observations: 5 entries against 4"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate_hz: 20", "rate_hertz: 20", r"rover.yaml:3: tick.rate_hertz = 20: unknown key"),
        ("rate_hz: 20", "rate_hz: 0", r"rover.yaml:3: tick.rate_hz = 0: .*greater than 0"),
        ("{rate_hz: 20}", "{rate_hz: 20, trigger: odom}", "either rate_hz or trigger"),
        ("{rate_hz: 20}", "{trigger: odo}", "tick.trigger names topic 'odo', declared are odom"),
        ("limits: [-1, 1]}\n  - {name: q", "limits: [1, -1]}\n  - {name: q", r":9: .*limits \[1"),
        ("[[-1, 1], [-2, 2]]", "[[-1, 1]]", ""),
        ("[[-1, 1], [-2, 2]]", "[[0, 1], [0, 1], [0, 1]]", "'q' has 2 components but 3 limits"),
        (", max_age_s: 0.1", "", "'joints' feeds an observation, so it needs max_age_s"),
        ("slew: 2, safe: 0}", "slew: 2, safe: 0.6}", "safe = .* lies outside"),
        ("slew: 2, safe: 0}", "slew: 2}", r":18: actions\[0\].safe: required key is missing"),
        ("slew: 2,", "slew: -2,", "slew .* must be greater than 0"),
        ("name: last", "name: speed", "the name 'speed' is used 2 times"),
        ("name: last, previous_action: true", "name: last", "give exactly one of"),
        ("of: [place, home]", "of: [place, house]", "'house', which is no field"),
        ("of: [place, home]", "of: [place]", "'gap' derives from 1 operands, it takes 2"),
        ("of: [place, home]", "of: [place, speed]", "gap"),
        ("history_of: speed", "history_of: last", "itself a memory of earlier"),
        ("linear.x, unit", "'linear[', unit", r"linear\["),
        ("nav_msgs/Odometry", "Odometry", "must read package/msg/Name"),
        ('expression: "-speed"', "field: place", "must have one component"),
        ("robot: rover", "robot: rover\nepisode: {jump: {warp: 1}}", "'warp', which is no field"),
        ('expression: "-speed"', 'expression: "-speed", field: place', "exactly one of expression"),
        ("robot: rover", "robot: rover\nrobot: rover", r":3: key 'robot' appears twice"),
        ("format: 1", "format: 2", r":1: format = 2"),
        ("format: 1", "format: [", "is not YAML"),
        ("name: q,", "name: next_q,", "observations"),
        ("name: q, topic: joints", "name: gap_x, topic: joints", ""),
    ],
)  # fmt: skip
def test_a_bad_contract_is_refused_by_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in ROVER
    path = write(tmp_path, ROVER.replace(old, new))
    if not message:
        load_contract(path)
        return
    with pytest.raises(ContractError, match=message):
        load_contract(path)


def test_colliding_component_names_are_refused(tmp_path: Path) -> None:
    text = ROVER.replace("- {name: vx,", "- {name: gap_x,")
    with pytest.raises(ContractError, match=r"component name 'gap_x' of .* is already one of"):
        load_contract(write(tmp_path, text))


def test_a_missing_contract_names_the_shipped_robots() -> None:
    with pytest.raises(ContractError, match=r"give a YAML file or one of arm6"):
        load_contract("nowhere.yaml")


def test_shipped_robots_load_by_name() -> None:
    assert load_contract("arm6").action_size == 6


def test_message_folders_are_read_into_the_contract(tmp_path: Path) -> None:
    folder = tmp_path / "msgs" / "my_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Wheel.msg").write_text("float32 speed\nPart part\n")
    (folder / "Part.msg").write_text("int32 id\n")
    (folder / "Unused.msg").write_text("int32 id\n")
    text = ROVER.replace("nav_msgs/Odometry", "my_msgs/msg/Wheel").replace(
        "robot: rover", "robot: rover\nmessage_folders: [msgs]"
    )
    contract = load_contract(write(tmp_path, text))
    assert sorted(contract.definitions) == ["my_msgs/msg/Part", "my_msgs/msg/Wheel"]
    (folder / "Part.msg").write_text("int64 id\n")
    assert load_contract(write(tmp_path, text)).digest() != contract.digest()
    with pytest.raises(ContractError, match=r"nothing is not a folder"):
        load_contract(write(tmp_path, text.replace("[msgs]", "[nothing]")))
