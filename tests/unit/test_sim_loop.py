import numpy as np

from iql_ros.contract import load_contract
from iql_ros.contracts.safety import Safety
from iql_ros.controller import Controller
from iql_ros.wire import make_types
from sim.behaviour import Arm
from sim.loop import run_episodes
from sim.world import load_world


def controller(policy):
    """Of the arm, without the check that needs a bundle's statistics."""
    contract = load_contract("arm6").model_copy(update={"safety": Safety()})
    return Controller(contract, policy, make_types({}))


def straight_policy(contract):
    """A policy that needs nothing but the observation: resolved rate towards the target."""
    arm = Arm()

    def policy(observation):
        q = observation[contract.index("q")].astype(float)
        offset = observation[contract.index("offset")]
        return arm.towards(q, arm.position(q) + offset, 0.4).astype(np.float32)

    return policy


def test_a_good_policy_succeeds_through_the_controller():
    world = load_world("arm6", seed=2)
    results = run_episodes(world, controller(straight_policy(world.contract)), range(10))
    assert [result.episode for result in results] == list(range(10))
    assert all(result.success for result in results)
    assert max(result.steps for result in results) < 60


def test_the_policy_decides_once_a_step_on_the_newest_measurements():
    world = load_world("arm6", seed=2)
    seen, measured = [], []

    def policy(observation):
        seen.append(observation[world.contract.index("q")])
        measured.append(world.fields["q"])
        return np.zeros(6, np.float32)

    (result,) = run_episodes(world, controller(policy), [0])
    assert not result.success
    assert len(seen) == result.steps + 1  # also where the last step ends
    np.testing.assert_array_equal(np.array(seen), np.array(measured, np.float32))


def test_a_policy_that_raises_leaves_the_arm_still():
    world = load_world("arm6", seed=2)

    def policy(observation):
        raise RuntimeError("no")

    start = world.data.qpos.copy()
    run_episodes(world, controller(policy), [0])
    # Ten deviations of an encoder's noise would be 2e-3; the drives hold against friction only.
    np.testing.assert_allclose(world.data.qpos, start, atol=3e-3)
