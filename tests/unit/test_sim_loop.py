import numpy as np

from iql_ros.contract import load_contract
from iql_ros.controller import Controller
from iql_ros.wire import make_types
from sim.behaviour import Arm
from sim.loop import controller_pilot, run_episodes
from sim.world import ArmWorld


def straight_policy(contract):
    """A policy that needs nothing but the observation: resolved rate towards the target."""
    arm = Arm()

    def policy(observation):
        q = observation[contract.index("q")].astype(float)
        offset = observation[contract.index("offset")]
        return arm.towards(q, arm.position(q) + offset, 0.4).astype(np.float32)

    return policy


def test_a_good_policy_succeeds_through_the_controller():
    contract = load_contract("arm6")
    controller = Controller(contract, straight_policy(contract), make_types({}))
    results = run_episodes(ArmWorld(seed=2), controller_pilot(controller), range(10))
    assert [result.episode for result in results] == list(range(10))
    assert all(result.success for result in results)
    assert max(result.steps for result in results) < 60


def test_the_policy_decides_once_a_period_on_the_newest_readings():
    contract = load_contract("arm6")
    seen = []

    def policy(observation):
        seen.append(observation[contract.index("q")])
        return np.zeros(6, np.float32)

    watched = []
    (result,) = run_episodes(
        ArmWorld(seed=2),
        controller_pilot(Controller(contract, policy, make_types({}))),
        [0],
        watch=lambda readings: watched.append(readings[-1].q),
    )
    assert not result.success
    # all periods but the last, after which the episode was over
    np.testing.assert_array_equal(np.array(seen), np.array(watched[:-1], np.float32))


def test_a_policy_that_raises_leaves_the_arm_still():
    contract = load_contract("arm6")

    def policy(observation):
        raise RuntimeError("no")

    watched = []
    run_episodes(
        ArmWorld(seed=2),
        controller_pilot(Controller(contract, policy, make_types({}))),
        [0],
        watch=lambda readings: watched.append(readings[-1].q),
    )
    np.testing.assert_allclose(watched[-1], watched[0], atol=3e-3)
