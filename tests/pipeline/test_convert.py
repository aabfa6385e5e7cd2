"""Bags in, datasets out: the grid, action and ending rules on logs small enough to count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError, DatasetError, LogError
from tests.bags import MS, START_NS, Entry, float64, twist, write_bag
from tests.bags import toy_contract as contract
from training.conversion.convert import convert, convert_log

SHARED = Path(__file__).parents[2].parent / "shared" / "real_logs"
TURTLE = Path(__file__).parents[2] / "examples" / "turtlesim" / "contract.yaml"


def state(t_ms: float, value: float) -> Entry:
    return ("/state", "std_msgs/msg/Float64", t_ms, float64(value))


def command(t_ms: float, value: float) -> Entry:
    return ("/cmd", "geometry_msgs/msg/Twist", t_ms, twist(value))


STATES = [state(100 * k, float(k)) for k in range(6)]
COMMANDS = [command(100 * k + 50, k / 10) for k in range(6)]


def columns(converted: Any) -> tuple[list, ...]:
    s = converted.steps
    return s.observations[:, 0].tolist(), s.actions[:, 0].round(6).tolist(), s.rewards.tolist()


def test_a_step_holds_the_last_state_and_the_command_given_during_it(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    observations, actions, rewards = columns(convert_log(bag, contract()))
    assert observations == [0, 1, 2, 3, 4]
    assert actions == [0.0, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(rewards, [1, 2, 3, 4, 5])


def test_a_command_exactly_at_the_next_instant_belongs_to_the_next_step(tmp_path: Path) -> None:
    commands = [command(0, 5), command(100, 6), command(200, 7)]
    bag = write_bag(tmp_path / "bag", [*STATES[:3], *commands])
    assert columns(convert_log(bag, contract()))[1] == [5, 6]


def test_time_before_every_topic_has_a_value_gives_no_step(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS[2:]])
    converted = convert_log(bag, contract())
    assert columns(converted)[0] == [2, 3, 4]
    assert converted.steps.facts["dropped_no_command"] == 2


def test_a_gap_in_the_states_ends_the_episode_as_a_timeout(tmp_path: Path) -> None:
    late = [state(1000 + 100 * k, float(k)) for k in range(3)]
    commands = [command(100 * k + 50, 0) for k in range(13)]
    steps = convert_log(write_bag(tmp_path / "bag", [*STATES, *late, *commands]), contract()).steps
    assert steps.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 0, 1]
    assert not steps.terminals.any()
    assert np.flatnonzero(steps.timeouts).tolist() == [6, 8]


def test_only_a_declared_rule_makes_a_terminal(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    steps = convert_log(bag, contract(episode={"terminal": "next_x >= 3"})).steps
    assert steps.terminals.tolist() == [False, False, True]
    assert not steps.timeouts.any()
    assert steps.facts["dropped_after_terminal"] == 2


def test_long_episodes_are_cut_as_timeouts(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    steps = convert_log(bag, contract(episode={"max_steps": 2})).steps
    assert steps.timeouts.tolist() == [False, True, False, True, True]


def test_a_changed_reset_field_splits_and_drops_the_crossing_step(tmp_path: Path) -> None:
    topics = contract().canonical()["topics"] | {
        "episode": {"topic": "/episode", "type": "std_msgs/msg/Float64"}
    }
    numbers = [("/episode", "std_msgs/msg/Float64", t, float64(n)) for t, n in ((0, 1), (250, 2))]
    resets = contract(
        topics=topics,
        signals=[{"name": "episode", "topic": "episode", "path": "data"}],
        episode={"reset": "episode"},
    )
    steps = convert_log(write_bag(tmp_path / "bag", [*STATES, *COMMANDS, *numbers]), resets).steps
    assert steps.observations[:, 0].tolist() == [0, 1, 3, 4]
    assert steps.timeouts.tolist() == [False, True, False, True]
    assert steps.signals["episode"][:, 0].tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("on_silence", "actions"),
    [("hold", [1, 1, 1, 1, 1]), ("zero", [1, 1, 0, 0, 0]), ("break", [1, 1])],
)
def test_silence_of_the_command_topic_counts_as_declared(
    tmp_path: Path, on_silence: str, actions: list[float]
) -> None:
    topics = contract().canonical()["topics"]
    topics["cmd"] |= {"command_timeout_s": 0.2, "on_silence": on_silence}
    bag = write_bag(tmp_path / "bag", [*STATES, command(20, 1)])
    assert columns(convert_log(bag, contract(topics=topics)))[1] == actions


def test_a_trigger_topic_sets_the_instants(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    steps = convert_log(bag, contract(tick={"trigger": "state", "every": 2})).steps
    assert ((steps.t_ns - START_NS) // MS).tolist() == [0, 200]
    assert steps.actions[:, 0].round(6).tolist() == [0.1, 0.3]


def test_a_pause_of_the_trigger_ends_the_episode(tmp_path: Path) -> None:
    states = [state(t, t) for t in (0, 100, 200, 900, 1000)]
    bag = write_bag(tmp_path / "bag", [*states, command(-1, 0)])
    steps = convert_log(bag, contract(tick={"trigger": "state"})).steps
    assert steps.observations[:, 0].tolist() == [0, 100, 900]
    assert steps.timeouts.tolist() == [False, True, True]
    assert steps.facts["dropped_gap"] == 1


def test_a_state_that_is_not_finite_breaks_the_episode_or_is_skipped(tmp_path: Path) -> None:
    states = [*STATES[:3], state(300, np.nan), *STATES[4:]]
    bag = write_bag(tmp_path / "bag", [*states, *COMMANDS])
    steps = convert_log(bag, contract()).steps
    assert steps.observations[:, 0].tolist() == [0, 1, 4]
    topics = contract().canonical()["topics"]
    topics["state"]["on_nonfinite"] = "hold"
    steps = convert_log(bag, contract(topics=topics)).steps
    assert steps.observations[:, 0].tolist() == [0, 1, 2, 2, 4]


def test_a_reward_field_is_taken_after_the_step(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    assert columns(convert_log(bag, contract(reward={"field": "x"})))[2] == [1, 2, 3, 4, 5]


def test_a_reward_function_gets_named_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_reward_module.py").write_text(
        "def r(s):\n    return s['next_x'] * 2 + s['u']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    rewards = columns(convert_log(bag, contract(reward={"function": "my_reward_module:r"})))[2]
    np.testing.assert_allclose(rewards, [2, 4.1, 6.2, 8.3, 10.4])
    with pytest.raises(ContractError, match="'my_reward_module:q' cannot be imported"):
        convert_log(bag, contract(reward={"function": "my_reward_module:q"}))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("next_y - x", "uses 'next_y', which is no component: there are u, x"),
        ("lgo(x)", "'lgo' is no function: there are abs, .* where"),
        ("__import__('os')", "cannot be evaluated"),
        ("x.T", "cannot be evaluated"),
        ("x +", "cannot be evaluated"),
    ],
)
def test_a_bad_expression_is_refused_with_the_names_there_are(
    tmp_path: Path, expression: str, message: str
) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    with pytest.raises(ContractError, match=message):
        convert_log(bag, contract(reward={"expression": expression}))


def test_both_storages_give_the_same_file(tmp_path: Path) -> None:
    entries = [*STATES, *COMMANDS]
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        bag = write_bag(tmp_path / storage.name / "bag", entries, storage)
        convert([bag], contract(), tmp_path / f"{storage.name}.h5")
    arrays = [h5py.File(tmp_path / f"{s}.h5") for s in ("MCAP", "SQLITE3")]
    for name in ("observations", "next_observations", "actions", "rewards", "infos/t_ns"):
        np.testing.assert_array_equal(arrays[0][name][:], arrays[1][name][:])


def test_many_logs_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    for i in range(3):
        shifted = [(*e[:2], e[2] + 10_000 * i, e[3]) for e in (*STATES, *COMMANDS)]
        write_bag(tmp_path / "logs" / f"bag{i}", shifted)
    bags = sorted((tmp_path / "logs").iterdir())
    convert(bags, contract(), tmp_path / "a.h5")
    convert(bags[::-1], contract(), tmp_path / "b.h5")
    report = convert([tmp_path / "logs"], contract(), tmp_path / "c.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()
    assert (report["steps"], report["episodes"]) == (15, 3)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["infos/source"][:].tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert file["infos/episode"][:].tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert file.attrs["contract_digest"] == contract().digest()


def test_a_bad_log_is_left_out_and_named_in_the_report(tmp_path: Path) -> None:
    good = write_bag(tmp_path / "good", [*STATES, *COMMANDS])
    bad = write_bag(tmp_path / "bad", STATES)
    report = convert([good, bad], contract(), tmp_path / "a.h5")
    assert [failure["path"] for failure in report["failed"]] == [str(bad)]
    assert json.loads((tmp_path / "a.report.json").read_text()) == report


def test_an_output_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    out = tmp_path / "a.h5"
    out.write_text("mine")
    with pytest.raises(DatasetError, match=r"a\.h5 exists: choose another name or pass --force"):
        convert([bag], contract(), out)
    assert out.read_text() == "mine"
    convert([bag], contract(), out, force=True)
    assert h5py.is_hdf5(out)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (STATES, r"topic /cmd \(cmd\) is not in this log: it has /state"),
        (COMMANDS, r"topic /state \(state\) is not in this log: it has /cmd"),
        (
            [*COMMANDS, ("/state", "std_msgs/msg/Float32", 0, {"data": 1.0})],
            "/state is std_msgs/msg/Float32 in this log, the contract says std_msgs/msg/Float64",
        ),
        ([*COMMANDS, state(0, np.nan)], "no step meets the contract"),
        ([command(0, 1), state(100, 1)], "no step meets the contract"),
    ],
)
def test_a_log_that_does_not_fit_says_why(
    tmp_path: Path, entries: list[Entry], message: str
) -> None:
    with pytest.raises(LogError, match=message):
        convert_log(write_bag(tmp_path / "bag", entries), contract())


def test_an_unknown_joint_is_named_with_those_there_are(tmp_path: Path) -> None:
    joints = {
        "header": ("std_msgs/msg/Header", {"stamp": ("builtin_interfaces/msg/Time",
                   {"sec": 1, "nanosec": 0}), "frame_id": ""}),
        "name": ["left", "right"],
        "position": np.array([0.1, 0.2]),
        "velocity": np.array([]),
        "effort": np.array([]),
    }  # fmt: skip
    topics = contract().canonical()["topics"]
    topics["state"]["type"] = "sensor_msgs/msg/JointState"
    arm = contract(
        topics=topics,
        observations=[{"name": "x", "topic": "state", "path": "position[elbow]"}],
    )
    bag = write_bag(
        tmp_path / "bag", [("/state", "sensor_msgs/msg/JointState", 0, joints), *COMMANDS]
    )
    with pytest.raises(LogError, match=r"/state has no usable message: .*elbow.*left.*right"):
        convert_log(bag, arm)


def test_a_wrong_path_names_the_fields_there_are(tmp_path: Path) -> None:
    wrong = contract(observations=[{"name": "x", "topic": "state", "path": "value"}])
    bag = write_bag(tmp_path / "bag", [*STATES, *COMMANDS])
    with pytest.raises(ContractError, match=r"value.*data"):
        convert_log(bag, wrong)


def test_header_time_too_far_from_receive_time_is_refused(tmp_path: Path) -> None:
    topics = contract().canonical()["topics"]
    topics["state"] |= {"type": "geometry_msgs/msg/PointStamped", "clock": "header"}
    stamped = contract(
        topics=topics, observations=[{"name": "x", "topic": "state", "path": "point.x"}]
    )
    point = {
        "header": ("std_msgs/msg/Header", {"stamp": ("builtin_interfaces/msg/Time",
                   {"sec": 5, "nanosec": 0}), "frame_id": ""}),
        "point": ("geometry_msgs/msg/Point", {"x": 1.0, "y": 0.0, "z": 0.0}),
    }  # fmt: skip
    entries = [("/state", "geometry_msgs/msg/PointStamped", 0, point), *COMMANDS]
    with pytest.raises(LogError, match=r"header clock of /state is .* s behind .* clock: receive"):
        convert_log(write_bag(tmp_path / "bag", entries), stamped)


# -- other people's logs ---------------------------------------------------------------

real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real logs at {SHARED}")


@real
def test_the_turtle_converts_from_both_generations_of_ros(tmp_path: Path) -> None:
    turtle = load_contract(TURTLE)
    logs = [SHARED / "turtlesim_db3", SHARED / "turtlesim_rosbagjs"]
    report = convert(logs, turtle, tmp_path / "turtle.h5")
    assert report["steps"] == 540
    assert not report["failed"]


@real
def test_three_compressions_of_one_bag_give_equal_arrays(tmp_path: Path) -> None:
    turtle = load_contract(TURTLE)
    files = []
    for suffix in ("", "_bz2", "_lz4"):
        out = tmp_path / f"turtle{suffix}.h5"
        convert([SHARED / f"turtlesim_rosbagjs{suffix}"], turtle, out)
        files.append(h5py.File(out))
    names = ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    for name in (*names, "infos/t_ns", "infos/episode", "infos/source"):
        for other in files[1:]:
            assert other[name][:].tobytes() == files[0][name][:].tobytes()


@real
def test_a_type_that_is_not_embedded_names_the_remedy(tmp_path: Path) -> None:
    bare = load_contract(TURTLE).model_copy(update={"definitions": {}})
    with pytest.raises(ContractError, match=r"turtlesim/msg/Pose.*message_folders"):
        convert([SHARED / "turtlesim_db3"], bare, tmp_path / "turtle.h5")


@real
def test_a_truncated_bag_names_itself_and_the_remedy(tmp_path: Path) -> None:
    path = SHARED / "truncated_ros1" / "test_truncated.bag"
    with pytest.raises(LogError, match=r"test_truncated\.bag"):
        convert([path], load_contract(TURTLE), tmp_path / "turtle.h5")


def test_an_empty_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="bag"):
        convert_log(write_bag(tmp_path / "bag", []), contract())
    (tmp_path / "empty.bag").touch()
    with pytest.raises(LogError, match=r"empty\.bag"):
        convert_log(tmp_path / "empty.bag", contract())
