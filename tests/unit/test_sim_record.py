import fcntl
import os
import shutil

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError
from iql_ros.policies import open_policy
from sim.loop import fly
from sim.record import Driver, read_results, record
from sim.scenarios import Physics, Scenario
from sim.world import load_world
from tests.small_world import joints_contract, write_joint_bundle, write_world
from training.conversion.convert import convert
from training.datasets.dataset import load_dataset

REACHED_M = 0.05  # of the arm's world file and contract

TYPES = get_typestore(Stores.ROS2_JAZZY)


def read(bag):
    """Receive times and messages by topic, in the order of the file's clock."""
    found = {}
    with Reader(bag) as reader:
        for connection, t_ns, payload in reader.messages():
            message = TYPES.deserialize_cdr(payload, connection.msgtype)
            found.setdefault(connection.topic, []).append((t_ns, message))
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    out = tmp_path_factory.mktemp("bags")
    return out, record(out, episodes=3, seed=1, episodes_per_bag=2)


def test_bags_of_another_world_or_other_drivers_are_not_kept(recorded, tmp_path):
    out = tmp_path / "bags"
    shutil.copytree(recorded[0], out)
    kept = [path.stat().st_mtime_ns for path in out.iterdir()]
    assert len(record(out, episodes=3, seed=1, episodes_per_bag=2).bags) == 2
    assert [path.stat().st_mtime_ns for path in out.iterdir()] == kept

    (next(iter(out.iterdir())) / "recorded_from.sha256").write_text("another")
    with pytest.raises(ContractError, match="was recorded before the model, contract, world file"):
        record(out, episodes=3, seed=1, episodes_per_bag=2)
    assert [path.stat().st_mtime_ns for path in out.iterdir()] == kept


@pytest.mark.parametrize("given", [0.5, [0.1, 0.2], [np.nan] * 6])
def test_drivers_that_give_no_action_are_named(given):
    with pytest.raises(ContractError, match=r"the drivers of world 'arm6' gave .*: an action is 6"):
        fly(load_world("arm6"), lambda fields: given, 0)


def test_each_bag_is_a_folder_with_metadata_and_mcap(recorded):
    out, recording = recorded
    assert sorted(path.name for path in out.iterdir()) == [bag.name for bag in recording.bags]
    assert len(recording.bags) == 2
    for bag in recording.bags:
        assert (bag / "metadata.yaml").exists()
        assert (bag / f"{bag.name}.mcap").exists()


def test_every_fifth_joint_state_is_followed_by_a_command_within_milliseconds(recorded):
    _, recording = recorded
    topics = read(recording.bags[0])
    joints = np.array([t_ns for t_ns, _ in topics["/joint_states"]])
    commands = np.array([t_ns for t_ns, _ in topics["/velocity_controller/commands"]])
    assert commands[0] < joints[0]  # at rest from before the first decision
    last = np.searchsorted(joints, commands[1:], side="right") - 1
    assert (last % 5 == 0).all()
    delay_ms = (commands[1:] - joints[last]) / 1e6
    assert delay_ms.min() > 0.5
    assert delay_ms.max() < 3.0


def test_the_log_holds_the_steps_that_the_results_count(recorded):
    _, recording = recorded
    results = read_results(recording.bags[0])
    topics = read(recording.bags[0])
    episodes = [message.data for _, message in topics["/episode"]]
    assert sorted(set(episodes)) == [result.episode for result in results]
    for result in results:
        # the beginning of every step, and the end of the last
        assert episodes.count(result.episode) == result.steps + 1
    commands = topics["/velocity_controller/commands"]
    assert len(commands) == 1 + sum(r.steps + 1 for r in results)


def test_an_episode_that_succeeded_ends_at_its_target_in_the_log(recorded):
    _, recording = recorded
    success = {result.episode: result.success for result in recording.results}
    assert set(success) == {0, 1, 2}
    for bag in recording.bags:
        topics = read(bag)
        starts = [t_ns for t_ns, _ in topics["/target"]]
        points = [message.point for _, message in topics["/target"]]
        numbers = [message.data for _, message in topics["/episode"]]
        closest = {}
        for t_ns, message in topics["/tcp_pose"]:
            i = np.searchsorted(starts, t_ns, side="right") - 1
            hand, goal = message.pose.position, points[i]
            distance = np.hypot(np.hypot(hand.x - goal.x, hand.y - goal.y), hand.z - goal.z)
            closest[numbers[i]] = distance
        for number, distance in closest.items():
            assert (distance < REACHED_M) == success[number]


def test_recording_again_keeps_the_bags_and_the_results(recorded):
    out, recording = recorded
    before = {bag: (bag / f"{bag.name}.mcap").stat().st_mtime_ns for bag in recording.bags}
    assert record(out, episodes=3, seed=1, episodes_per_bag=2) == recording
    assert before == {bag: (bag / f"{bag.name}.mcap").stat().st_mtime_ns for bag in before}


def test_the_same_seed_gives_the_same_messages_from_any_number_of_jobs(recorded, tmp_path):
    _, recording = recorded
    again = record(tmp_path, episodes=2, seed=1, episodes_per_bag=2, jobs=2)
    assert again.results == recording.results[:2]
    first, second = (read(bag)["/joint_states"] for bag in (recording.bags[0], again.bags[0]))
    assert [t_ns for t_ns, _ in first] == [t_ns for t_ns, _ in second]
    np.testing.assert_array_equal(first[-1][1].position, second[-1][1].position)


def test_an_interrupted_recording_leaves_only_whole_bags(tmp_path):
    def interrupt_after_the_first_bag(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, 5, seed=1, episodes_per_bag=1, progress=interrupt_after_the_first_bag)
    bags = list(tmp_path.iterdir())
    assert 1 <= len(bags) < 5
    for bag in bags:
        assert (bag / "metadata.yaml").exists()
        assert len(read_results(bag)) == 1


def test_what_a_killed_recording_left_goes_with_the_next_but_not_while_another_runs(tmp_path):
    left = tmp_path / ".unfinished-killed" / "bag"
    left.mkdir(parents=True)
    (left / "bag.mcap").write_bytes(b"half")
    stranger = tmp_path / ".notes"
    stranger.mkdir()
    alive = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_SH)
    record(tmp_path, 1, seed=1, world="cartpole")
    assert left.exists()
    os.close(alive)
    (bag,) = record(tmp_path, 1, seed=1, world="cartpole").bags
    assert sorted(tmp_path.iterdir()) == [stranger, bag]


def test_no_episodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="episodes = 0"):
        record(tmp_path, episodes=0, seed=0)


@pytest.mark.parametrize("robot", ["cartpole", "diffbot"])
def test_every_worlds_bags_convert_to_the_rewards_that_the_simulator_counted(robot, tmp_path):
    recording = record(tmp_path / "bags", episodes=3, seed=4, world=robot)
    report = convert([*recording.bags], load_contract(robot), tmp_path / "data.h5")
    assert not report["failed"]
    data = load_dataset(tmp_path / "data.h5")
    ends = np.flatnonzero(data.terminals | data.timeouts) + 1
    sums = [float(part.sum()) for part in np.split(data.rewards, ends[:-1])]
    # 1e-4: rewards are kept as float32
    assert sums == pytest.approx([r.total_reward for r in recording.results], rel=1e-4)
    assert [*np.diff([0, *ends])] == [result.steps for result in recording.results]
    failed = [result.ending == "failure" for result in recording.results]
    assert data.terminals[ends - 1][failed].all()


def test_a_bundle_drives_and_its_bag_converts_by_its_own_contract(tmp_path):
    tick = {"trigger": "joints", "every": 5}
    contract = joints_contract(tick)
    world = str(write_world(tmp_path / "world", contract))
    bundle = write_joint_bundle(tmp_path / "bundle", tick)
    scenario = Scenario(description="heavier", physics=Physics(mass=(0.8, 1.2)))
    driver = Driver(bundle.path, "mass", scenario)
    first = record(tmp_path / "a", 1, seed=3, world=world, driver=driver)
    again = record(tmp_path / "b", 1, seed=3, world=world, driver=driver, jobs=2)
    assert first.results == again.results
    assert first.bags[0].name == "two_joints_bundle_mass_seed3_00000-00000"
    report = convert([*first.bags], contract, tmp_path / "data.h5")
    assert report["steps"] == first.results[0].steps
    data = load_dataset(tmp_path / "data.h5")
    policy = open_policy(bundle, "onnx").policy
    wanted = np.array([policy(observation) for observation in data.observations])
    inside = (np.abs(wanted) < 1.0).all(axis=1)
    assert inside.mean() > 0.5
    # 1e-5: messages carry doubles, the policy float32
    np.testing.assert_allclose(data.actions[inside], wanted[inside], atol=1e-5)
