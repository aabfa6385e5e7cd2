import math

import numpy as np
import pytest

from sim.loop import fly
from sim.operators.diffbot import BEAMS, CREW, on_duty
from sim.operators.diffbot import drive as drive_well
from sim.world import load_world

EAST_M, NORTH_M = 1.5, 0.9  # of the arena, from its middle


def stand(world, x, y, yaw, posts=((0.3, 0.8), (0.3, 0.8), (0.3, 0.8)), goal=(1.1, 0.0)):
    """Puts the robot, the posts and the goal there, and asks the sensors once."""
    world.noise = 0.0
    world.reset(0)
    world.data.qpos[:7] = x, y, 0.0328, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)
    for i, place in enumerate(posts):
        world.data.mocap_pos[i][:2] = place
    world.data.mocap_pos[3][:2] = goal
    world.advance()


def drive(world, action, steps):
    """Lets control steps pass; the last thing is what the sensors say at their end."""
    for _ in range(steps * world.every):
        world.advance()
        if world.is_deciding:
            world.command(world.encode(np.array(action, float)))


def test_ranges_are_those_to_walls_and_posts():
    world = load_world("diffbot")
    stand(world, -0.5, 0.1, 0.0, posts=[(0.5, 0.1), (1.3, -0.7), (1.3, 0.7)])
    ranges = world.fields["range"]
    lidar_x = -0.5 - 0.032  # the lidar sits behind the axle
    # 5 mm: the robot settles on its caster, and the beam tilts with it
    near = {"abs": 0.005}
    assert ranges[0] == pytest.approx(0.5 - 0.12 - lidar_x, **near)  # the post's near side
    assert ranges[90 // 15] == pytest.approx(NORTH_M - 0.1, **near)
    assert ranges[180 // 15] == pytest.approx(lidar_x + EAST_M, **near)
    assert ranges[270 // 15] == pytest.approx(NORTH_M + 0.1, **near)
    # 30 degrees: the north wall, at (0.9 - 0.1) / sin 30
    assert ranges[30 // 15] == pytest.approx(0.8 / math.sin(math.pi / 6), rel=0.01)


def test_beams_turn_with_the_robot():
    world = load_world("diffbot")
    stand(world, 0.0, 0.0, math.pi / 2, posts=[(-1.3, 0.7), (1.3, -0.7), (1.3, 0.7)])
    lidar_y = -0.032
    assert world.fields["range"][0] == pytest.approx(NORTH_M - lidar_y, abs=0.005)
    assert world.fields["range"][270 // 15] == pytest.approx(EAST_M, abs=0.005)  # to its right


def test_odometry_adds_up_what_the_wheels_turned():
    world = load_world("diffbot")
    stand(world, -1.0, 0.0, 0.0, posts=[(-1.3, 0.8), (1.3, -0.7), (1.3, 0.7)])
    drive(world, [0.15, 0.0], 50)
    way = world.fields["place"][0] + 1.0
    # 4 %: the servo's finite gain; less the first 0.1 s, until it has come up to speed
    assert way == pytest.approx(0.15 * 4.9, rel=0.04)
    assert way == pytest.approx(0.033 * world.data.qpos[-2:].mean(), abs=1e-3)
    assert world.fields["place"][:2] == pytest.approx(world.data.qpos[:2], abs=0.01)  # slip
    before = world.fields["heading"]
    drive(world, [0.0, 0.5], 20)
    turned = 2 * (math.asin(world.fields["heading"][2]) - math.asin(before[2]))
    # 15 %: the wheels' friction weighs more the slower they turn
    assert turned == pytest.approx(0.5 * 2.0, rel=0.15)  # counter-clockwise is positive
    after = world.data.qpos
    assert turned == pytest.approx(2 * math.atan2(after[6], after[3]), abs=0.1)


def test_odometry_begins_anew_where_the_next_episode_begins():
    world = load_world("diffbot")
    drive(world, [0.2, 0.5], 20)
    world.reset(1)
    world.advance()
    assert world.fields["place"][:2] == pytest.approx(world.data.qpos[:2], abs=2e-3)


def test_the_goal_is_seen_from_the_robot():
    world = load_world("diffbot")
    stand(world, 0.5, 0.0, math.pi / 2, goal=(0.5, 0.5))
    # straight ahead; 5 mm: the robot has settled on its wheels
    assert world.fields["to_goal"] == pytest.approx([0.5, 0.0, 0.0], abs=5e-3)


def test_running_into_a_wall_is_felt_and_fails():
    world = load_world("diffbot")
    run = fly(world, lambda fields: np.array([0.2, 0.0 * fields["distance"][0]]), 0)
    assert run.ending == "failure"
    assert -40.0 < run.total_reward < -15.0  # a bump costs 20


def test_wheels_turn_no_faster_than_the_servo_can():
    world = load_world("diffbot")
    stand(world, 0.0, 0.0, 0.0)
    drive(world, [0.2, 1.5], 20)
    assert world.data.ctrl[1] == pytest.approx((0.2 + 0.08 * 1.5) / 0.033)
    assert np.abs(world.data.qvel[-2:]).max() < 6.7  # 6.4 rad/s, and a little for settling


def test_driving_turns_to_the_goal_and_away_from_what_is_near():
    free = np.full(len(BEAMS), 3.0)
    move = drive_well(0.2, 3.0)
    ahead, left = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.0])
    assert move({"range": free, "to_goal": ahead}) == pytest.approx([0.2, 0.0])
    assert move({"range": free, "to_goal": left})[1] > 0.5
    for post, sign in ((1, -1), (23, 1), (0, -1)):  # 15 degrees to the left, to the right, ahead
        near = free.copy()
        near[post] = 0.3
        speed, turn = move({"range": near, "to_goal": ahead})
        assert sign * turn > 0.1
        assert speed < 0.12


def test_operators_of_the_diffbot_are_mediocre():
    world = load_world("diffbot", seed=7)
    endings = [fly(world, on_duty(np.random.default_rng(i), world), i).ending for i in range(12)]
    assert 2 <= endings.count("success") <= 10


def test_driving_well_succeeds_where_driving_blind_does_not():
    world = load_world("diffbot", seed=2)
    counts = {}
    for intent in ("drive", "blind"):
        moves = [CREW.intents[intent](np.random.default_rng(i)) for i in range(5)]
        counts[intent] = sum(fly(world, move, i).success for i, move in enumerate(moves))
    assert counts["drive"] > counts["blind"]
