import numpy as np

from iql_ros.contract import load_contract
from sim.behaviour import SLEW_LIMIT, SPEED_LIMIT, Arm, Behaviour
from sim.loop import run_episodes
from sim.world import STEP_S, ArmWorld


def test_limits_are_those_of_the_contract():
    contract = load_contract("arm6")
    assert (contract.action_high == SPEED_LIMIT).all()
    assert (contract.action_low == -SPEED_LIMIT).all()
    assert (contract.action_slew == SLEW_LIMIT).all()


def test_commands_keep_their_limits_and_slew():
    world = ArmWorld(seed=0)
    for episode in range(6):
        behaviour = Behaviour(np.random.default_rng(episode))
        readings = world.reset(episode)
        previous = np.zeros(6)
        for _ in range(40):
            command = behaviour(readings)
            assert np.abs(command).max() <= SPEED_LIMIT
            assert np.abs(command - previous).max() <= SLEW_LIMIT * STEP_S + 1e-12
            previous = command
            readings = world.step(command)


def test_the_same_generator_gives_the_same_commands():
    reading = ArmWorld(seed=0).reset(0)
    first, second = (Behaviour(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first(reading), second(reading))


def test_operators_are_mediocre():
    world = ArmWorld(seed=0)
    results = [
        result
        for episode in range(60)
        for result in run_episodes(world, Behaviour(np.random.default_rng(episode)), [episode])
    ]
    successes = sum(result.success for result in results)
    assert 15 <= successes <= 36  # there is something to imitate, and much to improve


def test_resolved_rate_moves_the_tool_straight_at_the_wanted_speed():
    arm = Arm()
    q = np.array([0.1, 0.2, 1.6, -0.2, -1.5, 0.0])
    start = arm.position(q)
    velocity = np.array([0.0, 0.19, 0.06])
    dt = 1e-4
    dq = arm.towards(q, start + velocity, speed=float(np.linalg.norm(velocity)))
    moved = (arm.position(q + dt * dq) - start) / dt
    # 5 %: the damping gives up that much of the wanted velocity
    np.testing.assert_allclose(moved, velocity, atol=0.01)
