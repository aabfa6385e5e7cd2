"""Logs with planted faults, and other people's: what inspect says, and the contract it proposes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from rosbags.rosbag2 import Writer
from typer.testing import CliRunner

from iql_ros.contract import load_contract
from iql_ros.contracts.definitions import read_definitions
from iql_ros.errors import IqlRosError, LogError
from iql_ros.verbs.inspect import inspect_command
from tests.bags import MS, START_NS, TYPES, Entry, float64, payload, twist, write_bag
from training.conversion.convert import convert_log
from training.inspection.facts import LogFacts, TopicFacts, facts_as_json
from training.inspection.inspect import inspect_log
from training.inspection.propose import propose
from training.logs import open_log

LOGS = Path(__file__).parents[3] / "shared" / "real_logs"
TURTLE_MSGS = Path(__file__).parents[2] / "examples" / "turtlesim" / "msgs"
DAY_NS = 86400 * 10**9

needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"no real logs at {LOGS}")


def header(stamp_ns: int) -> tuple[str, dict[str, Any]]:
    time = {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}
    stamp = ("builtin_interfaces/msg/Time", time)
    return ("std_msgs/msg/Header", {"stamp": stamp, "frame_id": "base"})


def joints(
    t_ms: float, names: Sequence[str], position: Sequence[float], stamp_ns: int | None = None
) -> Entry:
    fields = {
        "header": header(START_NS + round(t_ms * MS) if stamp_ns is None else stamp_ns),
        "name": list(names),
        "position": np.array(position, float),
        "velocity": np.zeros(len(names)),
        "effort": np.zeros(0),
    }
    return ("/joint_states", "sensor_msgs/msg/JointState", t_ms, fields)


def pose(t_ms: float, quaternion: Sequence[float], topic: str = "/pose") -> Entry:
    x, y, z, w = quaternion
    place = ("geometry_msgs/msg/Point", {"x": t_ms / 1000, "y": 0.0, "z": 0.0})
    turn = ("geometry_msgs/msg/Quaternion", {"x": x, "y": y, "z": z, "w": w})
    fields = {"position": place, "orientation": turn}
    stamp = header(START_NS + round(t_ms * MS))
    both = {"header": stamp, "pose": ("geometry_msgs/msg/Pose", fields)}
    return (topic, "geometry_msgs/msg/PoseStamped", t_ms, both)


def stamped(
    count: int, stamp: Callable[[int], int], topic: str = "/point", every_ms: float = 20
) -> list[Entry]:
    """Points received every so many ms, with the stamp of message i."""
    point = ("geometry_msgs/msg/Point", {"x": 1.0, "y": 2.0, "z": 3.0})
    return [
        (
            topic,
            "geometry_msgs/msg/PointStamped",
            i * every_ms,
            {"header": header(stamp(i)), "point": point},
        )
        for i in range(count)
    ]


def facts_of(path: Path, entries: Sequence[Entry]) -> LogFacts:
    return inspect_log(open_log(write_bag(path / "bag", entries)))


def topic(facts: LogFacts, name: str) -> TopicFacts:
    found = facts.topic(name)
    assert found is not None
    return found


def warned(facts: LogFacts, *words: str) -> bool:
    return any(all(word in text for word in words) for text in facts.warnings)


def test_rate_jitter_and_the_largest_gap_are_measured(tmp_path: Path) -> None:
    times = [10.0 * k for k in range(100)] + [1290.0 + 10 * k for k in range(100)]
    facts = facts_of(tmp_path, [("/x", "std_msgs/msg/Float64", t, float64(0.0)) for t in times])
    receive = topic(facts, "/x").receive
    assert receive.rate_hz == pytest.approx(100)
    assert receive.jitter_s == pytest.approx(0)
    assert (receive.gap_s, receive.gap_at_s) == (pytest.approx(0.3), pytest.approx(0.99))
    assert warned(facts, "/x: 1 gap of 0.3 s at 1.0 s", "max_age_s")


def test_clean_log_has_no_warning(tmp_path: Path) -> None:
    entries = stamped(100, lambda i: START_NS + i * 20 * MS - 3_000_111)
    facts = facts_of(tmp_path, entries)
    assert facts.warnings == ()
    found = topic(facts, "/point")
    assert (found.layouts, found.definition, found.damaged) == (1, "embedded", 0)
    assert [numbers.path() for numbers in found.numbers] == ["point.{x,y,z}"]


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        (lambda i: START_NS + i * 20 * MS - 5 * DAY_NS - 77, ("5.0 days behind", "clock: receive")),
        (lambda i: START_NS + i * 20 * MS + 203_000_000_077, ("203.000 s ahead",)),
        (lambda i: START_NS + i * 21 * MS - 77, ("drifts by -3 s a minute",)),
        (lambda i: START_NS + i * 20 * MS - 77 if i % 4 else 0, ("250 of 1000 stamps are zero",)),
        (lambda i: (START_NS + i * 20 * MS) // 10**9 * 10**9, ("whole seconds",)),
        (lambda i: START_NS + i // 2 * 40 * MS - 77, ("500 of 1000 stamps equal",)),
        (lambda i: START_NS + (i - 9 * (i == 500)) * 20 * MS - 77, ("jump back, 1 times",)),
        (lambda i: i * 20 * MS + 77, ("simulated time", "/point", "clock: receive")),
    ],
)
def test_faults_of_a_header_clock_are_named_with_the_remedy(
    tmp_path: Path, stamp: Callable[[int], int], words: tuple[str, ...]
) -> None:
    facts = facts_of(tmp_path, stamped(1000, stamp))
    assert warned(facts, *words), facts.warnings


def test_simulated_and_wall_stamps_in_one_log_are_told_apart(tmp_path: Path) -> None:
    wall = stamped(20, lambda i: START_NS + i * 20 * MS, "/wall")
    facts = facts_of(tmp_path, [*wall, *stamped(20, lambda i: i * 20 * MS + 77, "/sim")])
    assert warned(facts, "simulated and wall time", "/sim count from zero", "/wall do not")


def test_start_up_burst_and_silent_commands_are_named(tmp_path: Path) -> None:
    times = [0.5 * k for k in range(8)] + [100.0 * k for k in range(1, 100)]
    burst = [("/odom", "std_msgs/msg/Float64", t, float64(0.0)) for t in times]
    commands = [("/cmd_vel", "geometry_msgs/msg/Twist", t, twist(1)) for t in (0, 4000, 9000)]
    facts = facts_of(tmp_path, [*burst, *commands])
    assert warned(facts, "/odom: a burst of 7 messages at start-up")
    assert warned(facts, "/cmd_vel: sparse commands: 3", "5 s (at 4.0 s)", "on_silence")


def test_bad_content_is_named(tmp_path: Path) -> None:
    arm = [joints(10 * k, "ab", [k, np.nan if k == 7 else 0]) for k in range(20)]
    swapped = [joints(200 + 10 * k, "ba", [0, k]) for k in range(20)]
    flips = [pose(10 * k, (0, 0, 0, 1 if k % 5 else -1)) for k in range(20)]
    facts = facts_of(tmp_path, [*arm, *swapped, *flips])
    assert warned(facts, "position[a,b] has a NaN", "in 1 of 40")
    assert warned(facts, "/joint_states: names come in 2 orders", "position[a]")
    assert warned(facts, "pose.orientation jumps to its negative 7 times", "rot6d")
    assert topic(facts, "/joint_states").layouts == 2


def test_payload_of_another_type_is_counted_and_unknown_type_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with Writer(path, version=9) as writer:
        good = writer.add_connection("/x", "geometry_msgs/msg/PointStamped", typestore=TYPES)
        strange = writer.add_connection("/y", "own_msgs/msg/Odd", msgdef="", rihs01="none")
        writer.write(good, START_NS, b"\0\1\0\0" + bytes(8))
        for _, msgtype, t_ms, fields in stamped(5, lambda i: START_NS + i * 20 * MS):
            t_ns = START_NS + round(t_ms * MS)
            writer.write(good, t_ns, payload(msgtype, fields))
            writer.write(strange, t_ns, b"\0\1\0\0" + bytes(8))
    facts = inspect_log(open_log(path))
    assert topic(facts, "/x").damaged == 1
    assert warned(facts, "/x: 1 payloads are no geometry_msgs/msg/PointStamped")
    assert topic(facts, "/y").definition == "unknown"
    assert warned(facts, "/y: its content cannot be read", "message_folders")


def test_of_images_only_the_stamp_is_read(tmp_path: Path) -> None:
    fields = {
        "header": header(START_NS),
        "height": 1,
        "width": 70_000,
        "encoding": "mono8",
        "is_bigendian": 0,
        "step": 70_000,
        "data": np.zeros(70_000, np.uint8),
    }
    facts = facts_of(tmp_path, [("/image", "sensor_msgs/msg/Image", 250.0, fields)])
    image = topic(facts, "/image")
    assert image.header is not None
    assert image.header.behind_s == pytest.approx(0.25)
    assert image.layouts == 0


def test_facts_are_plain_json(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, stamped(20, lambda i: START_NS))
    back = json.loads(json.dumps(facts_as_json(facts)))
    assert back["topics"][0]["numbers"] == ["point.{x,y,z}"]
    assert back["topics"][0]["receive"]["rate_hz"] == pytest.approx(50)


def arm_log(names: Sequence[str] = ("shoulder", "elbow")) -> list[Entry]:
    """Two seconds of an arm at 100 Hz, commanded velocities at 50 Hz."""
    states = [
        joints(10 * k, names, [np.sin(k / 30 + j) for j in range(len(names))]) for k in range(200)
    ]
    layout = ("std_msgs/msg/MultiArrayLayout", {"dim": [], "data_offset": 0})
    commands: list[Entry] = [
        (
            "/velocity_controller/commands",
            "std_msgs/msg/Float64MultiArray",
            20 * k + 1,
            {"layout": layout, "data": np.cos(k / 15 + np.arange(len(names)))},
        )
        for k in range(100)
    ]
    turns = [pose(20 * k, (np.sin(k / 50), 0, 0, np.cos(k / 50)), "/tcp") for k in range(100)]
    return [*states, *commands, *turns]


def proposed(path: Path, entries: Sequence[Entry], **options: Any) -> tuple[Path, Path]:
    """A bag, and the contract proposed for it."""
    bag = write_bag(path / "bag", entries)
    log = open_log(bag)
    contract = path / "contract.yaml"
    contract.write_text(propose(log, inspect_log(log), **options))
    return bag, contract


def test_proposed_contract_names_joints_units_limits_and_converts(tmp_path: Path) -> None:
    bag, file = proposed(tmp_path, arm_log())
    contract = load_contract(file)
    assert contract.tick.rate_hz == 50
    assert "joint_states_position_shoulder" in contract.observation_names
    assert "tcp_orientation_rotation_x_x" in contract.observation_names
    assert contract.fields["joint_states_position"].unit == "rad"
    assert contract.fields["tcp_orientation"] in contract.signals
    assert contract.topics["joint_states"].max_age_s == pytest.approx(0.03)
    low, high = contract.action_low, contract.action_high
    assert ((low < -1) & (low > -1.3) & (high > 1) & (high < 1.3)).all()
    steps = convert_log(bag, contract).steps
    assert len(steps.rewards) > 90
    assert np.isfinite(steps.observations).all()


def test_the_unit_of_joints_is_said_to_be_another_where_they_slide(tmp_path: Path) -> None:
    def commanded(t_ms: int) -> Entry:
        _, msgtype, _, fields = joints(t_ms, ["lift"], [0.0])
        moving = {"velocity": np.array([np.cos(t_ms / 300)]), "effort": np.zeros(0)}
        return ("/joint_command", msgtype, t_ms + 5, {**fields, **moving})

    times = range(0, 2000, 20)
    states = [joints(t, ["lift"], [np.sin(t / 300)]) for t in times]
    places = [pose(t, (0, 0, 0, 1)) for t in times]
    _, file = proposed(tmp_path, [*states, *places, *map(commanded, times)])
    units = [line for line in file.read_text().splitlines() if "unit: " in line]
    (position,) = [line for line in units if "name: joint_states_position" in line]
    (place,) = [line for line in units if "topic: pose" in line]
    (velocity,) = [line for line in units if line.startswith("    unit: ")]
    assert position.endswith("]}   # rad, or m for a joint that slides")
    assert velocity == "    unit: rad/s   # rad/s, or m/s for a joint that slides"
    assert "#" not in place
    assert load_contract(file).actions[0].unit == "rad/s"


@pytest.mark.parametrize("names", [("a,b", "c]d"), ("1", "2"), ("x y", "-3:"), ("p/q", "p.q")])
def test_joints_of_any_name_are_proposed_by_a_path_that_reads(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    bag, file = proposed(tmp_path, arm_log(names))
    assert len(convert_log(bag, load_contract(file)).steps.rewards) > 90


def test_silent_velocities_count_as_zero_and_can_be_stopped(tmp_path: Path) -> None:
    states = [pose(20 * k, (0, 0, np.sin(k / 90), np.cos(k / 90))) for k in range(300)]
    times = [*range(0, 2000, 50), *range(4000, 6000, 50)]
    commands = [("/cmd_vel", "geometry_msgs/msg/Twist", t, twist(1 + t / 9000)) for t in times]
    bag, file = proposed(tmp_path, [*states, *commands])
    contract = load_contract(file)
    assert contract.topics["command"].on_silence == "zero"
    assert contract.action_names == ("linear_x",)
    assert contract.action_low[0] <= 0
    assert contract.action_safe[0] == 0
    assert "pose_orientation_turn_sin" in contract.observation_names  # turns about z only
    assert (convert_log(bag, contract).steps.actions == 0).any()


def test_elements_that_are_not_finite_are_left_out_and_said(tmp_path: Path) -> None:
    entries = arm_log()
    entries.append(joints(2001, ("shoulder", "elbow"), [0.1, np.inf]))
    bag, file = proposed(tmp_path, entries)
    assert "# position[elbow] is NaN or infinite at times: left out" in file.read_text()
    assert len(convert_log(bag, load_contract(file)).steps.rewards) > 90


def test_log_without_commands_is_refused_unless_one_is_named(tmp_path: Path) -> None:
    other = stamped(100, lambda i: START_NS + i, "/gripper")
    for i, entry in enumerate(other):
        entry[3]["point"] = ("geometry_msgs/msg/Point", {"x": i / 10, "y": 0.0, "z": 0.0})
    entries = [*other, *(entry for entry in arm_log() if entry[0] == "/joint_states")]
    with pytest.raises(LogError, match=r"no topic looks like a command.*--action.*/joint_states"):
        proposed(tmp_path / "a", entries)
    bag, file = proposed(tmp_path / "b", entries, actions=["/gripper"])
    assert "safe must be chosen" not in file.read_text()
    assert convert_log(bag, load_contract(file)).steps.actions.shape[1] == 1
    with pytest.raises(LogError, match="--action /nothing is not in this log; candidates: /gripp"):
        proposed(tmp_path / "c", entries, actions=["/nothing"])


def test_of_a_measurement_taken_for_the_action_only_velocities_are(tmp_path: Path) -> None:
    entries = [entry for entry in arm_log() if entry[0] != "/velocity_controller/commands"]
    for k, entry in enumerate(entry for entry in entries if entry[0] == "/joint_states"):
        entry[3]["velocity"] = np.array([np.cos(k / 30), 0.0])
    bag, file = proposed(tmp_path, entries, actions=["/joint_states"])
    contract = load_contract(file)
    assert [action.path for action in contract.actions] == ["velocity[shoulder]"]
    assert "# position[shoulder,elbow]: left out" in file.read_text()
    assert len(convert_log(bag, contract).steps.rewards) > 90


def test_two_robots_are_not_mixed(tmp_path: Path) -> None:
    entries = [
        entry
        for robot, every in (("one", 20), ("two", 40))
        for k in range(100)
        for entry in (
            pose(every * k, (0, 0, np.sin(k), np.cos(k)), f"/{robot}/pose"),
            (f"/{robot}/cmd_vel", "geometry_msgs/msg/Twist", every * k, twist(float(k))),
        )
    ] + [("/one/cmd_vel", "geometry_msgs/msg/Twist", 2010.0, twist(3.0))]
    _, file = proposed(tmp_path, entries)
    topics = {entry.topic for entry in load_contract(file).topics.values()}
    assert topics == {"/one/pose", "/one/cmd_vel"}
    assert "# left out: /two/pose: its namespace has a command of its own" in file.read_text()


def cli() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(inspect_command)
    return app


def test_verb_prints_the_table_and_writes_what_is_asked(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", arm_log())
    facts, contract = tmp_path / "facts.json", tmp_path / "new" / "robot.yaml"
    arguments = [str(bag), "--json", str(facts), "--propose", str(contract)]
    result = CliRunner().invoke(cli(), arguments)
    assert result.exit_code == 0, result.exception
    assert "sensor_msgs/JointState" in result.output
    assert json.loads(facts.read_text())["duration_s"] == pytest.approx(1.99)
    assert load_contract(contract).action_size == 2
    again = CliRunner().invoke(cli(), arguments)
    assert isinstance(again.exception, IqlRosError)
    assert "exists: choose another name or pass --force" in str(again.exception)


REAL = sorted(folder.name for folder in LOGS.iterdir() if folder.is_dir()) if LOGS.is_dir() else []
NO_COMMAND = {
    "alltypes_db3",
    "alltypes_mcap",
    "husky_odom_imu",
    "turtlebot_imu_joint",
    "unindexed_ros1",
    "unsorted_chunks",
    "ur3_move",
}
ACTIONS = {"amr_location_velocity": ["/velocity"]}


@needs_logs
@pytest.mark.parametrize("name", [name for name in REAL if name != "truncated_ros1"])
def test_real_log_is_inspected_and_its_proposed_contract_converts(
    name: str, tmp_path: Path
) -> None:
    path = next((LOGS / name).glob("*.bag"), LOGS / name)
    log = open_log(path)
    folders = [str(TURTLE_MSGS)] if name == "turtlesim_db3" else []
    definitions = read_definitions([Path(f) for f in folders], ["turtlesim/msg/Pose"])
    facts = inspect_log(log, definitions)
    assert sum(entry.count for entry in facts.topics) > 0
    assert all(entry.damaged == 0 for entry in facts.topics)
    options: dict[str, Any] = {"definitions": definitions, "message_folders": folders}
    if name in NO_COMMAND:
        with pytest.raises(LogError, match="no topic looks like a command"):
            propose(log, facts, **options)
        return
    text = propose(log, facts, actions=ACTIONS.get(name, []), **options)
    file = tmp_path / "contract.yaml"
    file.write_text(text)
    assert yaml.safe_load(text)["format"] == 1
    assert len(convert_log(path, load_contract(file)).steps.rewards) > 200


@needs_logs
def test_state_of_unknown_type_asks_for_its_definition() -> None:
    log = open_log(LOGS / "turtlesim_db3")
    facts = inspect_log(log)
    assert topic(facts, "/turtle1/pose").definition == "unknown"
    with pytest.raises(LogError, match=r"/turtle1/pose.*turtlesim/msg/Pose.*--messages FOLDER"):
        propose(log, facts)


@needs_logs
def test_known_faults_of_a_real_log_are_found() -> None:
    path = LOGS / "amr_location_velocity" / "rosbag_demo.bag"
    facts = inspect_log(open_log(path))
    assert topic(facts, "/location").sign_flips == {"pose.orientation": 1394}
    assert warned(facts, "/location: its stamps are whole seconds")
    assert warned(facts, "/battery: 111 of 111 stamps are zero")
    assert warned(facts, "simulated and wall time in one log")
