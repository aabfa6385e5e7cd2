"""A cart on a rail with every kind of sensor: what a message holds is found by type and name."""

import numpy as np
import pytest
import yaml
from rosbags.typesys import Stores, get_typestore

from iql_ros.controller import Controller
from iql_ros.errors import ContractError
from iql_ros.wire import make_types
from sim.loop import Trial
from sim.world import load_world

TYPES = get_typestore(Stores.ROS2_JAZZY)

MODEL = """
<mujoco>
  <option timestep="0.005" gravity="0 0 -10"/>
  <worldbody>
    <geom name="wall" type="box" pos="2 0 0" size="0.1 5 5"/>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0" damping="1"/>
      <joint name="turn" type="hinge" axis="0 0 1" damping="1"/>
      <geom type="box" size="0.1 0.1 0.1" mass="1" contype="0" conaffinity="0"/>
      <site name="imu"/>
      <site name="scan" pos="0 0 0.05"/>
    </body>
    <body name="goal" mocap="true"/>
  </worldbody>
  <actuator>
    <motor name="push" joint="rail" gear="2"/>
    <motor name="twist" joint="turn"/>
  </actuator>
  <sensor>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="accelerometer" site="imu"/>
    <actuatorfrc name="load_0" actuator="push"/>
    <actuatorfrc name="load_1" actuator="twist"/>
    <framepos name="spot" objtype="body" objname="cart"/>
  </sensor>
</mujoco>
"""


def topic(kind, **keys):
    return {"topic": f"/{kind.rsplit('/', 1)[1].lower()}", "type": kind, "max_age_s": 1.0, **keys}


CONTRACT = {
    "format": 1,
    "robot": "cart",
    "tick": {"rate_hz": 10},
    "topics": {
        "odom": topic("nav_msgs/msg/Odometry"),
        "imu": topic("sensor_msgs/msg/Imu"),
        "scan": topic("sensor_msgs/msg/LaserScan"),
        "goal": topic("geometry_msgs/msg/PoseStamped"),
        "joints": topic("sensor_msgs/msg/JointState"),
        "motors": topic("std_msgs/msg/Float64MultiArray"),
        "place": topic("geometry_msgs/msg/Vector3"),
        "force": {"topic": "/force", "type": "std_msgs/msg/Float64MultiArray"},
    },
    "observations": [
        {"name": "x", "topic": "odom", "path": "pose.pose.position.x"},
        {"name": "v", "topic": "odom", "path": "twist.twist.linear.x"},
        {"name": "spin", "topic": "imu", "path": "angular_velocity.z"},
        {"name": "ranges", "topic": "scan", "path": "ranges[0:3]"},
        {"name": "target", "topic": "goal", "path": "pose.position.{x,y}"},
        {"name": "q", "topic": "joints", "path": "position[0:2]"},
        {"name": "load", "topic": "motors", "path": "data[0:2]"},
        {"name": "spot", "topic": "place", "path": "{x,y,z}"},
    ],
    "actions": [
        {"name": "force", "topic": "force", "path": "data[0:2]", "limits": [-5, 5], "safe": 0}
    ],
    "reward": {"expression": "-abs(x)"},
}

WORLD = {
    "format": 1,
    "world": "cart",
    "model": "model.xml",
    "contract": "contract.yaml",
    "sensor_hz": 20,
    "topics": {
        "odom": {"source": "cart"},
        "scan": {
            "frame": "laser",
            "scan": {"beams": 3, "angle_min": -1.5, "angle_max": 1.5, "range_max": 4.0},
        },
    },
    "names": {"rail_joint": "rail"},
    "actuators": {"push": "force_0 / 2", "twist": "force_1"},
    "start": {"joints": {"rail": 0.5}, "bodies": {"goal": {"x": [1, 2], "y": -1, "yaw": 0}}},
    "success": "x > 0.9",
    "failure": "x < 0",
    "time_limit_s": 2.0,
}


@pytest.fixture
def make(tmp_path):
    def make(contract=None, adapter="", **changes):
        (tmp_path / "model.xml").write_text(MODEL)
        (tmp_path / "contract.yaml").write_text(yaml.safe_dump({**CONTRACT, **(contract or {})}))
        if adapter:
            (tmp_path / "adapter.py").write_text(adapter)
            changes["adapter"] = "adapter.py"
        (tmp_path / "world.yaml").write_text(yaml.safe_dump({**WORLD, **changes}))
        return load_world(tmp_path / "world.yaml")

    return make


def messages_of(world):
    return {
        alias: TYPES.deserialize_cdr(payload, world.contract.topics[alias].type)
        for alias, _, payload in world.advance()
    }


def test_noise_may_grow_with_what_is_measured(make):
    scan = WORLD["topics"]["scan"]
    noisy = {**scan, "noise": {"ranges": 0.01}, "noise_share": {"ranges": 0.02}}
    world = make(topics={**WORLD["topics"], "scan": noisy})
    sensor, payloads = world.sensors["scan"], []
    sensor.begin(np.random.default_rng(3), 1.0, None)
    for _ in range(2000):
        payloads.append(TYPES.deserialize_cdr(sensor.measure(0), "sensor_msgs/msg/LaserScan"))
    spread = np.std([payload.ranges for payload in payloads], axis=0)
    # The standard deviation of 2000 draws is known to 1.6 %; four of these.
    distance = np.array([4.0, 1.9 - world.data.qpos[0], 4.0])
    np.testing.assert_allclose(spread, np.hypot(0.01, 0.02 * distance), rtol=0.064)


def test_a_bias_grows_as_the_noise_does(make):
    scan = WORLD["topics"]["scan"]
    noisy = {**scan, "noise": {"ranges": 0.01}, "noise_share": {"ranges": 0.02}}
    sensor = make(topics={**WORLD["topics"], "scan": noisy}).sensors["scan"]
    sensor.begin(np.random.default_rng(3), 0.0, np.full(3, 0.03))  # three deviations
    ranges = TYPES.deserialize_cdr(sensor.measure(0), "sensor_msgs/msg/LaserScan").ranges
    assert ranges[0] == pytest.approx(4.0 + 3 * np.hypot(0.01, 0.02 * 4.0), abs=1e-6)  # float32


def test_every_message_holds_what_the_model_says(make):
    world = make()
    world.command(world.encode(np.array([4.0, 1.0])))
    for _ in range(4):
        world.advance()
    found = messages_of(world)
    data = world.data
    assert found["odom"].pose.pose.position.x == data.qpos[0] > 0.5
    # nav_msgs/Odometry: the twist is in the frame of the child
    ahead = data.qvel[0] * np.cos(data.qpos[1])
    # MuJoCo's velocities and sensors are those of the last time step: 5 ms of 0.25 s ago.
    assert found["odom"].twist.twist.linear.x == pytest.approx(ahead, rel=0.05)
    assert found["odom"].twist.twist.angular.z == pytest.approx(data.qvel[1], rel=0.05)
    assert found["imu"].angular_velocity.z == pytest.approx(data.qvel[1], rel=0.05)
    assert found["imu"].linear_acceleration.z == pytest.approx(10.0)
    assert found["imu"].orientation.w == pytest.approx(np.cos(data.qpos[1] / 2))
    assert 1 <= found["goal"].pose.position.x <= 2
    assert found["goal"].pose.position.y == -1
    assert found["joints"].name == ["rail_joint", "turn"]
    np.testing.assert_array_equal(found["joints"].position, data.qpos)
    np.testing.assert_allclose(found["motors"].data, [2.0, 1.0])  # N before the gear
    assert found["place"].x == pytest.approx(data.body("cart").xpos[0], rel=0.02)


def test_the_laser_sees_the_wall_and_its_own_range(make):
    world = make()
    scan = messages_of(world)["scan"]
    assert scan.header.frame_id == "laser"
    assert (scan.angle_min, scan.angle_max) == (-1.5, 1.5)
    assert scan.angle_increment == pytest.approx(1.5)
    assert scan.range_max == 4.0
    # straight ahead the wall's face at 1.9 m, to the sides nothing within range
    np.testing.assert_allclose(scan.ranges, [4.0, 1.9 - world.data.qpos[0], 4.0], atol=1e-6)


def test_actuators_take_expressions_over_action_components(make):
    world = make()
    world.command(world.encode(np.array([4.0, 1.0])))
    np.testing.assert_array_equal(world.data.ctrl, [2.0, 1.0])


@pytest.mark.parametrize(("force", "ending"), [(5.0, "success"), (-5.0, "failure")])
def test_success_and_failure_end_an_episode(make, force, ending):
    world = make()
    world.command(world.encode(np.array([force, 0.0])))
    while (outcome := world.outcome()) is None:
        world.advance()
    assert outcome.ending == ending
    assert outcome.success is (ending == "success")


def test_success_must_hold_for_as_long_as_the_world_asks(make):
    world = make(success="x > 0.4", hold_s=0.5)
    while (outcome := world.outcome()) is None:
        world.advance()
    assert (outcome.ending, outcome.steps) == ("success", 4)  # of 0.1 s, the start included


def test_physics_that_comes_apart_ends_as_a_failure(make):
    world = make()
    world.advance()
    world.data.qvel[0] = 1e12
    while (outcome := world.outcome()) is None:
        world.advance()
    assert outcome.ending == "diverged"
    assert not outcome.success


def test_an_adapter_gives_what_names_do_not(make):
    adapter = """
from sim.world import Adapter

def adapt(world):
    def start(rng):
        world.data.qpos[0] = rng.uniform(0.2, 0.3)

    def actuate(action):
        world.data.ctrl[:] = -action

    doubled = {"{x,y,z}": lambda: 2 * world.data.body("cart").xpos}
    return Adapter(sensors={"place": doubled}, start=start, actuate=actuate)
"""
    world = make(adapter=adapter)
    assert 0.2 <= world.data.qpos[0] <= 0.3
    world.command(world.encode(np.array([1.0, 0.0])))
    found = messages_of(world)
    assert found["place"].x == 2 * world.data.body("cart").xpos[0]
    assert world.data.ctrl[0] == -1.0
    assert world.digest != make().digest


def test_an_adapter_without_its_function_is_refused(make):
    with pytest.raises(ContractError, match=r"must have a function adapt\(world\) that returns"):
        make(adapter="x = 1\n")


@pytest.mark.parametrize(
    ("contract", "changes", "text"),
    [
        (
            {},
            {"topics": {**WORLD["topics"], "scan": {}}},
            r"say topics\.scan\.scan: beams, angles and ranges",
        ),
        ({}, {"topics": {**WORLD["topics"], "imu": {"source": "scan"}}}, "no angular_velocity sen"),
        (
            {},
            {"topics": {**WORLD["topics"], "odom": {"source": "cart", "noise_share": {"x": 0.1}}}},
            "odom.noise_share names x, which noise does not: give the deviation that is there at 0",
        ),
        ({}, {"names": {"turn_joint": "door"}}, r"names\.turn_joint: door: the model has no jo"),
        (
            {"tick": {"rate_hz": 30}},
            {},
            r"sensor_hz 20 is no multiple of the contract's rate_hz 30",
        ),
        ({}, {"actuators": {"push": "force_0"}}, r"actuators\.twist = 'twist' uses 'twist'"),
        ({}, {"start": {"joints": {"door": 0}}}, r"no joint 'door', there are rail, turn"),
    ],
)
def test_what_does_not_match_is_told_with_what_there_is(make, contract, changes, text):
    with pytest.raises(ContractError, match=text):
        make(contract, **changes)


def test_a_sensor_that_is_missing_is_named_with_those_that_are_there(make):
    observations = [*CONTRACT["observations"]]
    observations[6] = {**observations[6], "name": "current"}
    with pytest.raises(ContractError, match=r"no sensor 'current_0', there are gyro, accelerom"):
        make({"observations": observations})


def test_a_model_that_mujoco_refuses_is_told(make, tmp_path):
    make()
    (tmp_path / "model.xml").write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(ContractError, match=r"model .* cannot be compiled"):
        load_world(tmp_path / "world.yaml")


def test_a_controller_of_a_fixed_rate_ticks_once_a_step(make):
    world = make()

    def policy(observation):
        return np.array([0.5, 0.0], np.float32)

    controller = Controller(world.contract, policy, make_types({}), clock=lambda: 0.0)
    episode = Trial(world, controller).run(0)
    assert episode.outcome.success
    assert len(episode.trace.t_s) == episode.outcome.steps + 1
    np.testing.assert_allclose(np.diff(episode.trace.t_s), 0.1, atol=1e-3)  # arrival gaps
    assert set(episode.statuses) == {"ok"}
    assert (episode.limit_violations, episode.slew_violations) == (0, 0)
