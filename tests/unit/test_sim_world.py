import mujoco
import numpy as np
import pytest

from sim.behaviour import Arm
from sim.world import JOINTS, SENSOR_NS, STEP_S, ArmWorld

STILL = np.zeros(6)


def test_an_episode_is_the_same_whatever_ran_before_it():
    fresh, used = ArmWorld(seed=4), ArmWorld(seed=4)
    used.reset(1)
    used.step(np.ones(6))
    first, second = fresh.reset(7)[-1], used.reset(7)[-1]
    np.testing.assert_array_equal(first.q, second.q)
    np.testing.assert_array_equal(first.target, second.target)


def test_episodes_and_seeds_differ():
    world = ArmWorld(seed=4)
    targets = [world.reset(0)[-1].target, world.reset(1)[-1].target]
    targets.append(ArmWorld(seed=5).reset(0)[-1].target)
    assert len({tuple(target) for target in targets}) == 3


def test_joints_follow_a_velocity_command_within_two_periods():
    world = ArmWorld(seed=0)
    command = np.array([0.5, -0.3, 0.4, 0.6, -0.5, 0.8])
    world.reset(0)
    world.step(command)
    reading = world.step(command)[-1]
    # 5 %: friction that the drive's finite gain does not overcome; and the sensors' noise
    np.testing.assert_allclose(reading.dq, command, rtol=0.05, atol=0.025)


def test_the_arm_stands_still_against_gravity():
    world = ArmWorld(seed=0)
    before = world.reset(0)[-1]
    for _ in range(20):
        after = world.step(STILL)[-1]
    np.testing.assert_allclose(after.q, before.q, atol=2e-3)
    assert abs(after.effort[1]) > 5.0  # N m: the shoulder carries the arm


def test_a_runaway_command_stops_at_the_joint_limit():
    world = ArmWorld(seed=0)
    world.reset(0)
    for _ in range(120):
        reading = world.step([0, 0, 1, 0, 0, 0])[-1]
    limit = world.model.joint("elbow").range[1]
    assert reading.q[2] == pytest.approx(limit, abs=0.05)


def test_sensors_come_every_ten_milliseconds():
    world = ArmWorld(seed=0, start_ns=5)
    times = [reading.t_ns for reading in (*world.reset(0), *world.step(STILL))]
    assert times == [5 + SENSOR_NS * i for i in range(1, 11)]
    assert pytest.approx(0.05) == STEP_S


def test_measured_tool_position_is_the_kinematics_of_the_measured_joints():
    world, arm = ArmWorld(seed=1), Arm()
    reading = world.reset(3)[-1]
    # Ten deviations of the noise of both: 0.3 mm, and 0.2 mrad on an arm of 0.9 m.
    np.testing.assert_allclose(arm.position(reading.q), reading.tcp, atol=4e-3)


def test_readings_cannot_be_written():
    reading = ArmWorld(seed=0).read()
    for values in (reading.q, reading.dq, reading.effort, reading.tcp, reading.target):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1.0


def test_joints_of_the_model_come_in_the_declared_order():
    model = ArmWorld(seed=0).model
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(model.njnt)]
    assert tuple(names) == JOINTS
