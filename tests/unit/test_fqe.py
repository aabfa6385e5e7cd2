from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.fqe import Bounds, FqeSettings, Transitions, fit_q

FAST = FqeSettings(members=2, hidden=16, steps=600, batch_size=64, learning_rate=1e-2, polyak=0.2)
DISCOUNT = 0.9
STAY, GO = -1.0, 1.0


def chain(policy: float, episodes: int = 60) -> Transitions:
    """Two states: in each `STAY` keeps the state and `GO` ends in the other.

    Being in state 1 after a step earns 1, in state 0 nothing. Actions were drawn by a fair coin,
    and nothing ever ends.
    """
    rng = np.random.default_rng(0)
    states = [rng.integers(2, size=episodes)]
    actions = []
    for _ in range(10):
        go = rng.integers(2, size=episodes)
        actions.append(go)
        states.append(states[-1] ^ go)
    now, after = np.stack(states[:-1], axis=1).ravel(), np.stack(states[1:], axis=1).ravel()
    go = np.stack(actions, axis=1).ravel()
    chosen = np.full(len(now), policy)
    return Transitions(
        state_actions=np.stack([2.0 * now - 1, 2.0 * go - 1], axis=1).astype(np.float32),
        next_state_actions=np.stack([2.0 * after - 1, chosen], axis=1).astype(np.float32),
        rewards=after.astype(np.float32),
        masks=np.ones(len(now), np.float32),
        episode=np.repeat(np.arange(episodes), 10),
    )


def rows(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, np.float32)


def test_fqe_of_the_two_state_chain_is_what_one_computes_by_hand() -> None:
    # Always staying: from state 1 the reward is 1 for ever, 1 / (1 - 0.9) = 10; from 0 nothing.
    # Going first: from 0 into 1 for ever, 10; from 1 into 0 for ever, 0.
    q = fit_q(chain(STAY), DISCOUNT, FAST)
    of_staying = q(rows((1, STAY), (-1, STAY), (-1, GO), (1, GO))).mean(axis=0)
    np.testing.assert_allclose(of_staying, [10, 0, 10, 0], atol=0.25)  # a fit, not a solution

    # Always going: from 0 the rewards are 1, 0, 1, ...: 1 / (1 - 0.81); from 1 they are 0, 1, ...
    q = fit_q(chain(GO), DISCOUNT, FAST)
    of_going = q(rows((-1, GO), (1, GO))).mean(axis=0)
    np.testing.assert_allclose(of_going, [1 / 0.19, 0.9 / 0.19], atol=0.25)


def test_a_terminal_ends_the_sum() -> None:
    data = chain(STAY)
    ended = Transitions(**{**vars(data), "masks": np.zeros(len(data.rewards), np.float32)})
    q = fit_q(ended, DISCOUNT, FAST)
    np.testing.assert_allclose(q(rows((1, STAY), (1, GO))).mean(axis=0), [1, 0], atol=0.1)


def test_the_level_of_values_needs_no_fitting() -> None:
    data = chain(STAY)
    ones = Transitions(**{**vars(data), "rewards": np.ones(len(data.rewards), np.float32)})
    q = fit_q(ones, DISCOUNT, FqeSettings(members=1, hidden=8, steps=1))
    assert q(rows((1, STAY))) == pytest.approx(10, abs=0.1)


def test_equal_seeds_give_equal_values_and_members_differ() -> None:
    brief = FqeSettings(members=2, hidden=8, steps=50)
    one, other = (fit_q(chain(GO), DISCOUNT, brief)(rows((1, GO))) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one[0, 0] != one[1, 0]


def test_values_stay_within_what_the_rewards_allow() -> None:
    assert Bounds.of(np.array([0.0, 1.0]), 0.5) == Bounds(0, 2)
    # Where all rewards are negative an episode that just ends is worth 0.
    assert Bounds.of(np.array([-2.0, -1.0]), 0.5) == Bounds(-4, 0)


def test_bootstrap_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        interval = bootstrap_mean(rng.normal(3.0, 2.0, size=40), seed)
        covered += interval.low <= 3.0 <= interval.high
    # 95 % promised; 40 episodes cost a percentile interval about 1.5; 100 repeats have spread 2.2.
    assert 0.86 <= covered / 100 <= 0.99


def test_the_interval_of_a_difference_is_paired() -> None:
    start = np.random.default_rng(0).normal(0, 10, size=50)
    gain = bootstrap_mean((start + 1) - start)
    assert (gain.low, gain.high) == pytest.approx((1, 1))
    assert gain.is_positive
    apart = bootstrap_mean(start)
    assert not apart.is_positive
    assert not apart.is_negative


def test_disagreement_between_members_widens_the_interval() -> None:
    agreed = np.zeros((4, 30))
    disagreed = agreed + np.array([[-1.0], [0.0], [0.0], [1.0]])
    assert bootstrap_mean(agreed).high == 0
    assert bootstrap_mean(disagreed).high == 1
    assert bootstrap_mean(disagreed).mean == 0
