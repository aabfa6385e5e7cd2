import math

import numpy as np
import pytest

from sim.loop import fly
from sim.operators.cartpole import INERTIA, MOMENT, on_duty, swing
from sim.operators.working import Crew, Operator, Shift
from sim.world import load_world


def stand(world, x, angle):
    world.noise = 0.0
    world.reset(0)
    world.data.qpos[:] = x, angle
    world.data.qvel[:] = 0.0


def push(world, force, steps):
    for _ in range(steps * world.every):
        world.advance()
        if world.is_deciding:
            world.command(world.encode(np.array([force])))


def test_a_push_to_the_right_moves_the_cart_right_and_leaves_the_pole_behind():
    world = load_world("cartpole")
    stand(world, 0.0, math.pi)
    push(world, 5.0, 5)
    assert world.fields["x"][0] > 0.0
    assert world.fields["angle"][0] > math.pi  # its tip, that hangs, lags to the left: sin < 0
    assert world.fields["tip"][0] < 0.0


def test_the_cart_accelerates_as_newton_has_it():
    world = load_world("cartpole")
    stand(world, 0.0, math.pi)
    push(world, 2.0, 1)
    # Cart, rotor and pole, less what the pole swings out of the way: M - (m l)^2 / J.
    swings = (MOMENT / 9.81) ** 2 / INERTIA
    mass = 0.94 + 0.133 + 0.230 - swings
    passed_s = 0.035  # from the decision, at the first reading, to the eighth
    friction = 5.4
    expected = 2.0 / friction * (1 - math.exp(-friction * passed_s / mass))
    # 2 %: the pole has begun to swing
    assert world.data.qvel[0] == pytest.approx(expected, rel=0.02)


def test_the_motor_gives_no_more_than_it_can():
    world = load_world("cartpole")
    push(world, 40.0, 2)
    assert world.data.qfrc_actuator[0] == pytest.approx(12.0)


def test_an_upright_pole_falls_and_a_hanging_one_swings_in_its_period():
    world = load_world("cartpole")
    stand(world, 0.0, 0.02)
    push(world, 0.0, 40)
    assert abs(world.data.qpos[1]) > 0.5
    stand(world, 0.0, math.pi + 0.1)
    world.model.dof_armature[0] = 1e6  # a cart that stays where it is
    angles = []
    for _ in range(100):
        push(world, 0.0, 1)
        angles.append(world.fields["angle"][0] - math.pi)
    crossings = np.flatnonzero(np.diff(np.sign(angles)))
    period_s = 2 * world.step_s * np.diff(crossings).mean()
    # 3 %: crossings are counted in whole steps of 20 ms
    assert period_s == pytest.approx(2 * math.pi * math.sqrt(INERTIA / MOMENT), rel=0.03)


def test_running_into_a_buffer_fails_and_costs():
    world = load_world("cartpole")
    run = fly(world, lambda fields: np.array([6.0]), 0)
    assert run.ending == "failure"
    assert -100.0 < run.total_reward < -30.0


def test_swinging_up_well_succeeds_and_hanging_does_not():
    world = load_world("cartpole", seed=3)
    assert sum(fly(world, swing(3.3), i).success for i in range(8)) >= 6
    assert fly(world, lambda fields: np.zeros(1), 0).ending == "time limit"


def test_operators_of_the_cartpole_are_mediocre():
    world = load_world("cartpole", seed=2)
    outcomes = [fly(world, on_duty(np.random.default_rng(i), world), i) for i in range(40)]
    assert 8 <= sum(outcome.success for outcome in outcomes) <= 30


@pytest.mark.parametrize("robot", ["cartpole", "diffbot"])
def test_operators_keep_limits_and_slew(robot):
    world = load_world(robot)
    shift = _shift(world, robot, 3)
    commands = [world.contract.action_safe]

    def pilot(fields):
        commands.append(shift(fields))
        return commands[-1]

    fly(world, pilot, 0)
    contract = world.contract
    assert (np.array(commands) >= contract.action_low).all()
    assert (np.array(commands) <= contract.action_high).all()
    changes = np.abs(np.diff(commands, axis=0))
    assert (changes <= contract.action_slew * world.step_s + 1e-12).all()


@pytest.mark.parametrize("robot", ["cartpole", "diffbot"])
def test_the_same_seed_gives_the_same_episode_to_the_bit(robot):
    def run(seed):
        world, heard = load_world(robot, seed), []
        outcome = fly(world, _shift(world, robot, 3), 5, lambda messages: heard.extend(messages))
        return outcome, heard

    assert run(1) == run(1)
    assert run(1)[1] != run(2)[1]


def _shift(world, robot, seed):
    module = __import__(f"sim.operators.{robot}", fromlist=["on_duty"])
    return module.on_duty(np.random.default_rng(seed), world)


def test_an_operator_with_an_unknown_intent_is_refused():
    with pytest.raises(ValueError, match=r"operator 'bold' has intents \{'fly'\}"):
        Crew({"bold": Operator(1.0, {"fly": 1.0})}, {"drive": lambda rng: None}, (1, 2))


def test_an_intent_lasts_for_its_stretch():
    drawn = []

    def intent(rng):
        value = float(len(drawn))
        drawn.append(value)
        return lambda fields: np.array([value])

    crew = Crew({"one": Operator(1.0, {"count": 1.0})}, {"count": intent}, (3, 3))
    shift = Shift(crew, np.random.default_rng(0), load_world("cartpole"))
    assert [float(shift({})[0]) for _ in range(7)] == [0, 0, 0, 1, 1, 1, 2]
