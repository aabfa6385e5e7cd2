import itertools

import mujoco
import numexpr
import numpy as np
import pytest
import yaml
from rosbags.typesys import Stores, get_typestore

from iql_ros.errors import ContractError, LogError
from sim.behaviour import Arm
from sim.start import widened
from sim.world import load_world
from sim.world_file import WORLDS, load_world_file

TYPES = get_typestore(Stores.ROS2_JAZZY)


def run(world, action, steps):
    """Lets control steps pass under one command."""
    for _ in range(steps * world.every):
        if world.is_deciding:
            world.command(world.encode(np.array(action, float)))
        messages = world.advance()
    return messages


def test_an_episode_is_the_same_whatever_ran_before_it():
    fresh, used = load_world("arm6", 4), load_world("arm6", 4)
    used.reset(1)
    run(used, np.ones(6), 2)
    for world in (fresh, used):
        world.t_ns = 7
        world.reset(7)
    assert fresh.advance() == used.advance()


def test_episodes_and_seeds_differ():
    def target(seed, episode):
        world = load_world("arm6", seed)
        world.reset(episode)
        world.advance()
        return tuple(world.fields["goal"])

    assert len({target(4, 0), target(4, 1), target(5, 0)}) == 3


def test_joints_follow_a_velocity_command_within_two_steps():
    world = load_world("arm6")
    command = np.array([0.5, -0.3, 0.4, 0.6, -0.5, 0.8])
    run(world, command, 2)
    # 5 %: friction that the drive's finite gain does not overcome
    np.testing.assert_allclose(world.data.qvel, command, rtol=0.05, atol=0.01)


def test_the_arm_stands_still_against_gravity():
    world = load_world("arm6")
    before = world.data.qpos.copy()
    run(world, np.zeros(6), 20)
    np.testing.assert_allclose(world.data.qpos, before, atol=1e-3)
    assert abs(world.data.qfrc_actuator[1]) > 5.0  # N m: the shoulder carries the arm


def test_a_runaway_command_stops_at_the_joint_limit():
    world = load_world("arm6")
    run(world, [0, 0, 1, 0, 0, 0], 120)
    limit = world.model.joint("elbow").range[1]
    assert world.data.qpos[2] == pytest.approx(limit, abs=0.05)


def test_drives_that_are_told_nothing_stop_after_the_contracts_timeout():
    world = load_world("arm6")
    run(world, np.full(6, 0.5), 1)
    for _ in range(45):
        world.advance()
    assert (world.action == 0.5).all()
    for _ in range(3):
        world.advance()
    assert (world.action == 0.0).all()


def test_an_independent_reader_finds_the_measurement_in_the_messages():
    world = load_world("arm6")
    world.noise, world.t_ns = 0.0, 1_760_000_000_123_456_789
    world.reset(3)
    messages = world.advance()
    decoded = {
        alias: TYPES.deserialize_cdr(payload, world.contract.topics[alias].type)
        for alias, _, payload in messages
    }
    joints, pose = decoded["joints"], decoded["tcp"].pose
    assert joints.name == [world.model.joint(i).name for i in range(6)]
    np.testing.assert_array_equal(joints.position, world.data.qpos)
    np.testing.assert_array_equal(joints.velocity, world.data.qvel)
    np.testing.assert_array_equal(joints.effort, world.data.qfrc_actuator)
    assert joints.header.frame_id == "base_link"
    assert joints.header.stamp.sec == 1_760_000_000
    assert joints.header.stamp.nanosec == 133_456_789
    tip = world.data.site("tcp")
    np.testing.assert_array_equal([pose.position.x, pose.position.y, pose.position.z], tip.xpos)
    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, tip.xmat)
    rotation = pose.orientation
    assert [rotation.w, rotation.x, rotation.y, rotation.z] == list(wxyz)
    point = decoded["target"].point
    np.testing.assert_array_equal([point.x, point.y, point.z], world.data.mocap_pos[0])
    assert decoded["episode"].data == 3


def test_the_trigger_comes_last_and_slow_topics_only_every_nth_time():
    world = load_world("arm6")
    first, second = world.advance(), world.advance()
    assert [message.alias for message in first] == ["tcp", "target", "episode", "joints"]
    assert [message.alias for message in second] == ["tcp", "joints"]
    assert second[0].arrival_ns - first[0].arrival_ns == 10_000_000
    arrivals = [message.arrival_ns for message in first]
    assert sorted(set(arrivals)) == arrivals


def test_measurements_are_as_noisy_as_the_world_file_says():
    world = load_world("arm6")
    positions = []
    for _ in range(400):
        world.advance()
        if world.is_deciding:
            positions.append(world.fields["q"] - world.data.qpos)
    # 80 x 6 draws: their deviation is within 15 % of the true one but once in 10^5
    assert np.std(positions) == pytest.approx(2e-4, rel=0.15)


def test_measured_tool_position_is_the_kinematics_of_the_measured_joints():
    world, arm = load_world("arm6", 1), Arm()
    world.reset(3)
    world.advance()
    # Ten deviations of the noise of both: 0.3 mm, and 0.2 mrad on an arm of 0.9 m.
    np.testing.assert_allclose(arm.position(world.fields["q"]), world.fields["hand"], atol=4e-3)


def test_rewards_and_ends_are_those_of_the_contract():
    world, arm = load_world("arm6", 2), Arm()
    rule, distances, total = world.contract.reward.expression, [], 0.0
    while world.outcome() is None:
        world.advance()
        if world.is_deciding:
            distances.append(float(world.fields["distance"][0]))
            goal = world.fields["goal"]
            world.command(world.encode(np.clip(arm.towards(world.fields["q"], goal, 0.4), -1, 1)))
    for pair in itertools.pairwise(distances):
        names = dict(zip(("distance", "next_distance"), pair, strict=True))
        total += float(numexpr.evaluate(rule, names))
        is_end = bool(numexpr.evaluate(world.contract.episode.terminal, names))
        assert is_end == (pair[1] == distances[-1])
    outcome = world.outcome()
    assert (outcome.success, outcome.ending) == (True, "success")
    assert outcome.steps == len(distances) - 1
    assert outcome.total_reward == pytest.approx(total, rel=1e-12)
    assert outcome.duration_s == pytest.approx(0.05 * outcome.steps)


def test_the_time_limit_ends_an_episode_after_whole_control_steps():
    world = load_world("arm6")
    periods = 0
    while (outcome := world.outcome()) is None:
        world.advance()
        periods += 1
    assert (outcome.success, outcome.ending, outcome.steps) == (False, "time limit", 60)
    assert outcome.steps == world.contract.episode.max_steps
    assert periods == 5 * 61


def test_a_command_comes_back_to_the_bit():
    world = load_world("arm6")
    action = np.random.default_rng(0).uniform(-1, 1, 6)
    world.command(world.encode(action))
    np.testing.assert_array_equal(world.action, action)


def test_a_command_of_five_joints_is_refused():
    message = TYPES.types["std_msgs/msg/Float64MultiArray"]
    layout = TYPES.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    payload = TYPES.serialize_cdr(
        message(layout=layout, data=np.zeros(5)), "std_msgs/msg/Float64MultiArray"
    )
    with pytest.raises(LogError, match="'command' is incomplete"):
        load_world("arm6").command({"command": bytes(payload)})


def test_a_command_that_is_not_finite_is_refused_and_changes_nothing():
    world = load_world("arm6")
    with pytest.raises(LogError, match="must be finite"):
        world.command(world.encode(np.array([0, 0, np.nan, 0, 0, 0])))
    assert (world.action == 0).all()


def test_the_digest_changes_with_the_world_and_not_with_the_seed():
    file, contract = load_world_file("arm6")
    digests = {load_world("arm6", seed).digest for seed in (0, 1)}
    assert len(digests) == 1
    from sim.world import World

    other = World(file.model_copy(update={"success": "distance < 0.06"}), contract)
    assert other.digest not in digests


def test_a_widened_start_keeps_its_middle():
    start = load_world_file("arm6")[0].start
    wide = widened(start, 2.0)
    assert wide.joints["shoulder_pan"] == pytest.approx((-1.2, 1.2))
    assert wide.bodies["target"]["radius"] == pytest.approx((0.29, 0.73))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"topics": {"tcp": {"source": "hand"}}}, r"no site, body or geom 'hand', there are tcp"),
        ({"topics": {"nose": {}}}, r"topics\.nose is no topic of contract 'arm6'"),
        ({"topics": {"tcp": {"noise": {"place": 1.0}}}}, r"names place: there are position, ori"),
        ({"names": {"elbow": "knee"}}, r"no joint 'knee', there are shoulder_pan"),
        ({"actuators": {}}, r"actuators\.shoulder_pan = .*say which in the world file's"),
        ({"actuators": {"knee": "command_0"}}, r"actuators\.knee: the model has shoulder_pan"),
        ({"success": "nearness < 1"}, r"success = 'nearness < 1' uses 'nearness': there are"),
        ({"sensor_hz": 300}, r"no period of whole nanoseconds"),
        ({"sensor_hz": 125.0e1}, r"sensor_hz 1250 is a period of 0.4 time steps"),
        ({"model": "nothing.xml"}, r"model = .*nothing\.xml is no file"),
        ({"start": {"bodies": {"shoulder": {"x": 0}}}}, r"'shoulder' is neither mocap nor free"),
        ({"colour": "red"}, r"colour.*unknown key"),
    ],
)
def test_a_wrong_world_file_says_what_is_wrong(change, text, tmp_path):
    content = yaml.safe_load((WORLDS / "arm6.yaml").read_text())
    content["model"] = str(WORLDS / content["model"])
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(content | change))
    with pytest.raises(ContractError, match=text):
        load_world(path)
