import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from sim.record import read_results, record

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


def test_no_episodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="episodes = 0"):
        record(tmp_path, episodes=0, seed=0)
