import numpy as np

from sim.behaviour import Arm, Behaviour
from sim.loop import fly
from sim.world import load_world


def test_commands_keep_their_limits_and_slew():
    world = load_world("arm6")
    contract = world.contract
    for episode in range(6):
        behaviour = Behaviour(np.random.default_rng(episode), world)
        commands = [np.zeros(6)]

        def pilot(fields, behaviour=behaviour, commands=commands):
            commands.append(behaviour(fields))
            return commands[-1]

        fly(world, pilot, episode)
        assert np.abs(commands).max() <= contract.action_high.max()
        changes = np.abs(np.diff(commands, axis=0))
        assert (changes <= contract.action_slew * world.step_s + 1e-12).all()


def test_the_same_generator_gives_the_same_commands():
    world = load_world("arm6")
    world.advance()
    first, second = (Behaviour(np.random.default_rng(5), world) for _ in range(2))
    np.testing.assert_array_equal(first(world.fields), second(world.fields))


def test_operators_are_mediocre():
    world = load_world("arm6")
    successes = sum(
        fly(world, Behaviour(np.random.default_rng(episode), world), episode).success
        for episode in range(60)
    )
    assert 15 <= successes <= 36  # there is something to imitate, and much to improve


def test_every_target_can_be_reached():
    world, arm = load_world("arm6", seed=11), Arm()

    def straight(fields):
        return np.clip(arm.towards(fields["q"], fields["goal"], 0.4), -1.0, 1.0)

    assert all(fly(world, straight, episode).success for episode in range(40))


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
