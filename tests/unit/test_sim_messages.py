import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from iql_ros.contract import load_contract
from iql_ros.errors import LogError
from sim.messages import decode_command, encode, encode_clock, encode_command
from sim.world import JOINTS, ArmWorld

TYPES = get_typestore(Stores.ROS2_JAZZY)


def test_an_independent_reader_finds_the_reading_in_the_messages():
    reading = ArmWorld(seed=0, start_ns=1_760_000_000_123_456_789).read()
    topics = load_contract("arm6").topics
    decoded = {
        message.alias: TYPES.deserialize_cdr(message.payload, topics[message.alias].type)
        for message in encode(reading, announce=True)
    }
    joints, pose = decoded["joints"], decoded["tcp"].pose
    assert joints.name == list(JOINTS)
    np.testing.assert_array_equal(joints.position, reading.q)
    np.testing.assert_array_equal(joints.velocity, reading.dq)
    np.testing.assert_array_equal(joints.effort, reading.effort)
    assert joints.header.stamp.sec == 1_760_000_000
    assert joints.header.stamp.nanosec == 123_456_789
    assert [pose.position.x, pose.position.y, pose.position.z] == list(reading.tcp)
    rotation = pose.orientation
    assert [rotation.x, rotation.y, rotation.z, rotation.w] == list(reading.tcp_rotation)
    point = decoded["target"].point
    assert [point.x, point.y, point.z] == list(reading.target)
    assert decoded["episode"].data == reading.episode


def test_joint_states_come_last_and_later():
    messages = encode(ArmWorld(seed=0).read(), announce=True)
    assert [message.alias for message in messages] == ["episode", "target", "tcp", "joints"]
    assert sorted({message.arrival_ns for message in messages}) == [m.arrival_ns for m in messages]


def test_target_and_episode_are_only_announced_on_demand():
    messages = encode(ArmWorld(seed=0).read(), announce=False)
    assert [message.alias for message in messages] == ["tcp", "joints"]


def test_clock_carries_the_simulated_time():
    clock = TYPES.deserialize_cdr(encode_clock(3_000_000_007), "rosgraph_msgs/msg/Clock").clock
    assert (clock.sec, clock.nanosec) == (3, 7)


def test_a_command_comes_back_to_the_bit():
    command = np.random.default_rng(0).normal(size=6)
    np.testing.assert_array_equal(decode_command(encode_command(command)), command)


def test_a_command_of_five_joints_is_refused():
    message_type = TYPES.types["std_msgs/msg/Float64MultiArray"]
    layout = TYPES.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    payload = TYPES.serialize_cdr(
        message_type(layout=layout, data=np.zeros(5)), "std_msgs/msg/Float64MultiArray"
    )
    with pytest.raises(LogError, match="must hold 6 numbers"):
        decode_command(bytes(payload))


def test_a_command_that_is_not_finite_is_refused():
    with pytest.raises(LogError, match="must be finite"):
        decode_command(encode_command(np.array([0, 0, np.nan, 0, 0, 0])))
