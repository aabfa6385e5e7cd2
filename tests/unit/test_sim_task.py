import numexpr
import numpy as np
import pytest

from iql_ros.contract import load_contract
from sim.behaviour import Arm
from sim.loop import run_episodes
from sim.task import REACHED_M, TIME_LIMIT_STEPS, Account, reward
from sim.world import ArmWorld


def test_rewards_are_those_of_the_contract():
    expression = load_contract("arm6").reward.expression
    distance, next_distance = np.random.default_rng(0).uniform(0, 1, (2, 50))
    expected = numexpr.evaluate(expression)
    got = [reward(d, n) for d, n in zip(distance, next_distance, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_end_of_an_episode_is_that_of_the_contract():
    episode = load_contract("arm6").episode
    for next_distance in (1e-3, REACHED_M - 1e-9, REACHED_M, 0.5):
        result = Account(0, 1.0, 0.05).add(next_distance)
        assert (result is not None) == bool(numexpr.evaluate(episode.terminal))
    assert episode.max_steps == TIME_LIMIT_STEPS


def test_return_adds_up_the_rewards():
    account = Account(episode=9, distance=0.5, step_s=0.05)
    assert account.add(0.4) is None
    assert account.add(0.2) is None
    result = account.add(0.01)
    assert result is not None
    assert (result.episode, result.success, result.steps) == (9, True, 3)
    assert result.total_reward == pytest.approx(
        reward(0.5, 0.4) + reward(0.4, 0.2) + reward(0.2, 0.01)
    )
    assert result.duration_s == pytest.approx(0.15)


def test_the_time_limit_ends_an_episode_without_success():
    account = Account(episode=0, distance=0.5, step_s=0.05)
    results = [account.add(0.5) for _ in range(TIME_LIMIT_STEPS)]
    assert results[:-1] == [None] * (TIME_LIMIT_STEPS - 1)
    assert results[-1] is not None
    assert not results[-1].success


def test_every_target_can_be_reached():
    arm = Arm()

    def straight(readings):
        return np.clip(arm.towards(readings[-1].q, readings[-1].target, 0.4), -1.0, 1.0)

    results = run_episodes(ArmWorld(seed=11), straight, range(40))
    assert all(result.success for result in results)
