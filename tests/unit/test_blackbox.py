from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iql_ros.blackbox.recording import Decided, Received
from iql_ros.blackbox.recording_file import TOPIC, is_recording, read_recording
from iql_ros.blackbox.replay import relive
from iql_ros.blackbox.ring import BlackBox
from iql_ros.contract import Contract
from iql_ros.errors import LogError
from iql_ros.wire import Reader
from tests.robot_life import SUPPORT, TYPES, Happening, Robot, contract, healthy, point
from training.conversion.convert import convert
from training.datasets.dataset import load_dataset
from training.logs import open_log

ENABLE = {"topic": "joy", "path": "data", "at_least": 0.5}
HARD = {
    "fallback": "ramp",
    "ramp_s": 0.3,
    "recover_after": 3,
    "support": {"action": "slow", "persistence": 2},
    "policy_budget_s": 0.01,
    "blend_s": 0.2,
    "enable": ENABLE,
}


RAISES, NOT_FINITE = -0.25, -0.5  # goals that bring the policy's faults out


def wavering(observation: np.ndarray) -> np.ndarray:
    """A policy that is a function of what it sees, its memory and its faults included."""
    if observation[1] == RAISES:
        raise RuntimeError("out of memory")
    if observation[1] == NOT_FINITE:
        return np.array([0.0, np.inf], np.float32)
    return np.array(
        [np.sin(3 * observation.sum()), 0.1 + observation[0] - observation[3]], np.float32
    )


def random_life(seconds: float, seed: int) -> list[Happening]:
    """A life at 20 Hz in which something goes wrong in about every third tick."""
    rng = np.random.default_rng(seed)
    life = [replace(h, answer=wavering) for h in healthy(seconds)]
    for i in range(len(life)):
        happening = life[i]
        if happening.kind == "tick":
            took_ms = 30.0 if rng.random() < 0.2 else 0.123456789 * rng.random()
            life[i] = happening = replace(happening, took_ms=took_ms, value=rng.choice([1.0, 0.5]))
        if rng.random() < 0.9:
            continue
        faults = [
            replace(happening, wait_ms=400),
            replace(happening, wait_ms=-5_000),
            replace(happening, value=np.nan),
            replace(happening, value=5.0),
            replace(happening, kind="joy", value=0.0),
            Happening("goal", value=RAISES),
            Happening("goal", value=NOT_FINITE),
            replace(happening, kind="bytes", junk=point(0, 1.0)[: rng.integers(40)]),
            Happening("overdue", 300),
            Happening("halt"),
            Happening("stop"),
            Happening("restart"),
        ]
        life[i] = faults[rng.integers(len(faults))]
    releases = [Happening("release")] * (len(life) // 40)
    for i, release in enumerate(releases):
        life.insert(40 * (i + 1), release)
    return life


def lived(rules: Contract, life: list[Happening], seconds: float = 60) -> tuple[BlackBox, Robot]:
    box = BlackBox(rules, TYPES, seconds, about={"bundle": "abc"})
    robot = Robot(rules, box)
    for happening in life:
        robot.live(happening)
    return box, robot


@pytest.mark.parametrize("fallback", ["safe", "ramp", "hold", "silent"])
def test_a_box_replays_every_decision_to_the_bit(fallback: str, tmp_path: Path) -> None:
    safety = {**{k: v for k, v in HARD.items() if k != "ramp_s"}, "fallback": fallback}
    box, _ = lived(contract(safety), random_life(30, seed=4))
    path = box.dump(tmp_path / "box.mcap")
    assert path is not None
    recording = read_recording(path)
    relived = list(relive(recording, wavering, TYPES, SUPPORT))
    assert all(pair.is_same for pair in relived)
    assert all(pair.now is not None and pair.now.detail == pair.then.detail for pair in relived)
    assert len(relived) > 400
    statuses = {pair.then.status for pair in relived}
    assert len(statuses) > 12, statuses


def test_two_aliases_of_one_topic_are_relived_as_each_heard_it(tmp_path: Path) -> None:
    topics = contract().canonical()["topics"]
    topics["late"] = {**topics["state"], "max_age_s": 0.5, "clock": "receive"}
    seen = [*contract().canonical()["observations"]]
    seen[1] = {"name": "y", "topic": "late", "path": "point.x"}
    rules = contract(topics=topics, observations=seen)
    box = BlackBox(rules, TYPES)
    robot = Robot(rules, box)
    for k, happening in enumerate(replace(h, answer=wavering) for h in healthy(1)):
        robot.live(happening)
        if happening.kind == "state" and k % 3:
            robot.controller.put("late", robot.t_ns, point(robot.t_ns, 0.1))
    box.dump(tmp_path / "box.mcap")
    relived = list(relive(read_recording(tmp_path / "box.mcap"), wavering, TYPES, SUPPORT))
    assert sum(pair.then.status.acts for pair in relived) > 10
    assert all(pair.is_same for pair in relived)


def test_a_box_that_has_forgotten_its_beginning_replays_from_the_state_it_kept(
    tmp_path: Path,
) -> None:
    life = [
        h for h in random_life(30, seed=5) if not isinstance(h.answer, tuple) or h.kind != "tick"
    ]
    box, robot = lived(contract(HARD), life, seconds=5)
    box.dump(tmp_path / "box.mcap")
    recording = read_recording(tmp_path / "box.mcap")
    decided = [event for event in recording.events if isinstance(event, Decided)]
    assert 60 < len(decided) < 400
    assert recording.state["memory"]["previous"] is not None
    assert all(pair.is_same for pair in relive(recording, wavering, TYPES, SUPPORT))
    assert decided[-1].command.t_ns == robot.t_ns or isinstance(recording.events[-1], Received)


def test_another_policy_is_seen_to_decide_otherwise(tmp_path: Path) -> None:
    box, _ = lived(contract(), [replace(h, answer=wavering) for h in healthy(1)])
    box.dump(tmp_path / "box.mcap")
    recording = read_recording(tmp_path / "box.mcap")
    opposite = [pair.is_same for pair in relive(recording, lambda o: -wavering(o), TYPES)]
    assert not all(opposite)


def test_a_box_is_a_bag_like_any_other(tmp_path: Path) -> None:
    box, _ = lived(contract(), list(healthy(1)))
    path = box.dump(tmp_path / "box.mcap")
    assert path is not None
    log = open_log(path)
    assert not log.findings
    assert {name: topic.count for name, topic in log.topics.items()} == {
        TOPIC: 21,
        "/state": 20,
        "/goal": 20,
        "/cmd": 20,
    }
    commands = [bytes(p) for block in log.blocks({"/cmd"}) for p in block.payloads]
    speed = Reader(TYPES, "geometry_msgs/msg/Twist", ["linear.x"]).read(commands[-1])
    assert speed is not None
    assert speed[0] == 1.0
    convert([path], contract(), tmp_path / "data.h5")
    steps = load_dataset(tmp_path / "data.h5")
    assert len(steps.actions) >= 18
    np.testing.assert_allclose(steps.actions[-1], [1.0, 0.3], atol=1e-7)  # float32


def test_commands_of_a_shadow_do_not_pass_for_commands(tmp_path: Path) -> None:
    box = BlackBox(contract(), TYPES, suffix="/shadow")
    robot = Robot(contract(), box)
    for happening in healthy(0.5):
        robot.live(happening)
    box.dump(tmp_path / "box.mcap")
    assert "/cmd/shadow" in open_log(tmp_path / "box.mcap").topics
    assert "/cmd" not in open_log(tmp_path / "box.mcap").topics
    assert all(
        p.is_same
        for p in relive(
            read_recording(tmp_path / "box.mcap"), lambda o: np.float32([1, 0.3]), TYPES
        )
    )


def test_the_ring_is_bounded_in_seconds_and_in_bytes() -> None:
    box, _ = lived(contract(), list(healthy(20)), seconds=3)
    recording = box.recording()
    assert recording is not None
    times = [e.t_ns if isinstance(e, Received) else e.command.t_ns for e in recording.events]
    assert 3e9 <= max(times) - min(times) <= 5.1e9
    small = BlackBox(contract(), TYPES, 30, max_bytes=4_000)
    robot = Robot(contract(), small)
    for happening in healthy(20):
        robot.live(happening)
    kept = small.recording()
    assert kept is not None
    assert sum(len(e.payload) for e in kept.events if isinstance(e, Received)) < 8_000


def test_a_clock_that_stands_still_does_not_fill_the_memory() -> None:
    box = BlackBox(contract(), TYPES, 1, max_bytes=1 << 20)
    robot = Robot(contract(), box)
    for _ in range(70_000):
        robot.controller.put("goal", 0, b"")
    recording = box.recording()
    assert recording is not None
    assert len(recording.events) <= 60_000


def test_an_empty_box_writes_nothing(tmp_path: Path) -> None:
    assert BlackBox(contract(), TYPES).dump(tmp_path / "box.mcap") is None
    assert not list(tmp_path.iterdir())


def test_a_box_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    box, _ = lived(contract(), list(healthy(0.2)))
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"black box .*box.mcap was not written: "):
        box.dump(tmp_path / "file" / "box.mcap")
    (tmp_path / "taken.mcap").mkdir()
    with pytest.raises(LogError, match=r"was not written: Is a directory"):
        box.dump(tmp_path / "taken.mcap")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.mcap"]


def test_what_is_no_box_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "box.mcap"
    path.write_bytes(b"no box")
    with pytest.raises(LogError, match="begins with b'no box'"):
        read_recording(path)
    assert not is_recording(path)
    box, _ = lived(contract(), list(healthy(0.2)))
    box.dump(path)
    assert is_recording(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole) // 2, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(LogError, match=r"box\.mcap"):
            read_recording(path)


def test_a_box_of_another_version_is_refused(tmp_path: Path) -> None:
    box, _ = lived(contract(), list(healthy(0.2)))
    path = box.dump(tmp_path / "box.mcap")
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b'{"format":2,', b'{"format":1,', 1))
    with pytest.raises(LogError, match=r"box.mcap has no /iql_controller/black_box of format 2 at"):
        read_recording(path)


def test_the_file_says_what_it_is_of(tmp_path: Path) -> None:
    box, _ = lived(contract(), list(healthy(0.2)))
    box.dump(tmp_path / "box.mcap")
    recording = read_recording(tmp_path / "box.mcap")
    assert recording.contract.digest() == contract().digest()
    assert recording.about == {"bundle": "abc"}
