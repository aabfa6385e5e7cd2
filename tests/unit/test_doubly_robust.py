from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.doubly_robust import RATIO_MAX, Decisions, doubly_robust

DISCOUNT = 0.5


def decisions(**changes: object) -> Decisions:
    """Two episodes, of two steps and of one, both ending by a terminal."""
    columns = {
        "log_ratios": np.log([2.0, 0.5, 0.4]),
        "rewards": np.array([1.0, 4.0, 3.0]),
        "masks": np.array([1.0, 0.0, 0.0]),
        "q": np.zeros(3),
        "v": np.zeros(3),
        "next_v": np.zeros(3),
        "starts": np.array([0, 2]),
        "ends": np.array([2, 3]),
    }
    return Decisions(**{**columns, **changes})  # type: ignore[arg-type]


def test_without_a_model_it_is_weighted_importance_sampling_per_decision() -> None:
    # t = 0: weights 2 and 0.4 of 2.4. t = 1: 2 * 0.5 and, the episode being over, still 0.4.
    by_hand = (2.0 * 1 + 0.4 * 3) / 2.4 + DISCOUNT * (1.0 * 4) / 1.4
    assert doubly_robust(decisions(), DISCOUNT).value.mean == pytest.approx(by_hand)


def test_with_an_exact_model_the_ratios_do_not_matter() -> None:
    # r + gamma m V' - Q is 0 in every step, so what is left is the mean V of the first steps.
    exact = {"q": np.array([3.0, 4.0, 3.0]), "v": np.array([7.0, 4.0, 5.0])}
    exact["next_v"] = np.array([4.0, 9.0, 9.0])  # beyond a terminal nothing counts
    estimates = [
        doubly_robust(decisions(**exact, log_ratios=np.log(ratios)), DISCOUNT).value.mean
        for ratios in ([2.0, 0.5, 0.4], [0.1, 9.0, 3.0])
    ]
    assert estimates == pytest.approx([6.0, 6.0])


def test_equal_policies_give_the_mean_return() -> None:
    same = doubly_robust(decisions(log_ratios=np.zeros(3)), DISCOUNT)
    assert same.value.mean == pytest.approx(((1 + 0.5 * 4) + 3) / 2)
    assert same.effective_episodes == pytest.approx(2)
    assert not same.is_usable


def test_a_ratio_is_kept_within_its_bound() -> None:
    wild = doubly_robust(decisions(log_ratios=np.array([50.0, 0.0, 0.0])), DISCOUNT)
    bounded = doubly_robust(decisions(log_ratios=np.log([RATIO_MAX, 1.0, 1.0])), DISCOUNT)
    assert wild == bounded


def test_few_effective_episodes_are_told() -> None:
    episodes = 40
    each = {
        "rewards": np.ones(episodes),
        "masks": np.zeros(episodes),
        "q": np.zeros(episodes),
        "v": np.zeros(episodes),
        "next_v": np.zeros(episodes),
        "starts": np.arange(episodes),
        "ends": np.arange(episodes) + 1,
    }
    even = doubly_robust(decisions(**each, log_ratios=np.zeros(episodes)), DISCOUNT)
    assert even.effective_episodes == pytest.approx(40)
    assert even.is_usable
    lone = np.full(episodes, -np.log(10.0))
    lone[0] = np.log(10.0)
    assert doubly_robust(decisions(**each, log_ratios=lone), DISCOUNT).effective_episodes < 2
