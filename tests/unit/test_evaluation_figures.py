"""Calibration, returns, curves, distances and verdicts on cases one can check by eye."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import calibrate, spearman
from training.evaluation.curves import Curve, gap, read_curves, signs
from training.evaluation.distance import action_distance
from training.evaluation.returns import returns_to_go
from training.evaluation.verdict import Evidence, remarks, vetoes

# -- returns and calibration -------------------------------------------------------------


def test_returns_to_go_are_discounted_within_an_episode_and_end_in_its_tail() -> None:
    rewards, starts, ends = np.array([1.0, 2.0, 4.0]), np.array([0, 2]), np.array([2, 3])
    np.testing.assert_allclose(returns_to_go(rewards, starts, ends, 0.5), [2, 2, 4])
    tails = np.array([8.0, 0.0])
    np.testing.assert_allclose(returns_to_go(rewards, starts, ends, 0.5, tails), [4, 6, 4])


def test_perfect_predictions_have_no_bias_and_full_order() -> None:
    returns = np.arange(40.0)
    found = calibrate(returns, returns, np.arange(0, 40, 4))
    assert found.bias == Interval(0, 0, 0)
    assert found.rank_correlation == pytest.approx(1)
    assert found.predicted == found.returned
    assert found.predicted[0] == pytest.approx(1.5)  # the lowest tenth: 0, 1, 2, 3


def test_a_constant_offset_is_bias_and_a_reversed_order_is_minus_one() -> None:
    returns = np.arange(40.0)
    found = calibrate(returns + 3, returns, np.arange(0, 40, 4))
    assert found.bias == pytest.approx(Interval(3, 3, 3))
    assert spearman(-(returns**3), returns) == pytest.approx(-1)


def test_equal_values_share_their_rank() -> None:
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5 by spreads sqrt(1.5 * 2).
    assert spearman(np.array([0.0, 0, 1]), np.array([0.0, 1, 2])) == pytest.approx(1.5 / 3**0.5)
    assert spearman(np.zeros(5), np.arange(5.0)) == 0


# -- curves ------------------------------------------------------------------------------

STEPS = np.arange(10, 210, 10)


def curve(values: np.ndarray) -> Curve:
    return Curve(STEPS, values)


FALLING = curve(np.exp(-STEPS / 20))
TURNING = curve(1 + ((STEPS - 80) / 100.0) ** 2)


def words(**curves: Curve) -> list[str]:
    named = {name.replace("__", "/"): of for name, of in curves.items()}
    return [sign.word for sign in signs(named, spread=1.0)]


def test_curves_that_settle_say_nothing() -> None:
    assert words(train__actor_loss=FALLING, held_out__actor_loss=FALLING) == []


def test_a_held_out_loss_that_turns_while_training_falls_is_overfitting() -> None:
    assert words(train__actor_loss=FALLING, held_out__actor_loss=TURNING) == ["overfits"]
    named = {"train/actor_loss": FALLING, "held_out/actor_loss": TURNING}
    assert "least at step 80" in signs(named)[0].text


def test_a_held_out_loss_that_still_falls_is_underfitting() -> None:
    line = curve(1 - STEPS / 400)
    assert words(train__actor_loss=line, held_out__actor_loss=line) == ["underfits"]


def test_values_that_rise_and_fall_are_kumars_sign_of_overfitting() -> None:
    flat = {"train__actor_loss": FALLING, "held_out__actor_loss": FALLING}
    assert words(**flat, held_out__value=curve(-TURNING.values)) == ["overfits"]
    assert words(**flat, held_out__value=curve(STEPS / 100)) == ["unsettled"]
    assert words(**flat, held_out__value=curve(-FALLING.values)) == []


def test_a_large_temporal_difference_error_is_underfitting() -> None:
    flat = {"train__actor_loss": FALLING, "held_out__actor_loss": FALLING}
    large, small = curve(np.full(20, 2 * 0.81)), curve(np.full(20, 2 * 0.01))
    assert words(**flat, train__critic_loss=large, held_out__critic_loss=large) == ["underfits"]
    assert words(**flat, train__critic_loss=small, held_out__critic_loss=small) == []
    assert words(**flat, train__critic_loss=small, held_out__critic_loss=large) == ["overfits"]


def test_few_points_are_too_few() -> None:
    lines = [{"step": 10, "train/actor_loss": 1.0, "held_out/actor_loss": 3.0}]
    curves = read_curves(lines)
    assert [sign.word for sign in signs(curves)] == ["too short"]
    assert gap(curves, "actor_loss") == (1.0, 3.0)
    assert gap(curves, "critic_loss") is None


# -- distance ----------------------------------------------------------------------------


def test_distances_are_shares_of_the_range() -> None:
    states = np.array([[0.0], [10.0]], np.float32)
    known_states = np.repeat(states, 10, axis=0)
    known_actions = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]], np.float32), 10, axis=0)
    recorded = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
    chosen = np.array([[0.2, 0.2], [1.0, 0.6]], np.float32)

    found = action_distance(states, chosen, recorded, known_states, known_actions)

    # -1 to 1 is the range: 0.2 is a tenth of it; (0, 0.4) has root mean square 0.2 / sqrt(2).
    assert found.to_recorded == pytest.approx((0.1 + 0.2 / 2**0.5) / 2)
    assert found.to_nearest == pytest.approx(found.to_recorded)
    assert found.recorded_to_nearest == 0
    assert found.components == pytest.approx((0.05, 0.15))
    assert found.at_limit == 0.25
    assert found.recorded_at_limit == 0.5


# -- verdict -----------------------------------------------------------------------------

FINE = Evidence(
    episodes=100,
    gain=Interval(1, 0.5, 1.5),
    outside_pairs=0.01,
    outside_recorded=0.01,
    largest_value=9.0,
    value_bounds=(-10, 10),
    rank_correlation=0.6,
    value_bias=Interval(1, 0.5, 1.5),
    estimator_error=Interval(0, -0.1, 0.1),
    cut_off=0.01,
    is_unseen=True,
    is_finished=True,
    signs=(),
)


def test_nothing_amiss_is_no_objection() -> None:
    assert vetoes(FINE) == []
    assert remarks(FINE) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gain": Interval(-1, -1.5, -0.5)}, "earn less than what was recorded: difference -1"),
        ({"outside_pairs": 0.3}, "in 30% of the steps state and action together lie outside"),
        ({"largest_value": 55.0}, "value of 55, rewards and discount allow -10 to 10"),
    ],
)
def test_what_would_surely_go_wrong_is_a_veto(changes: dict[str, object], words: str) -> None:
    (reason,) = vetoes(replace(FINE, **changes))  # type: ignore[arg-type]
    assert words in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_unseen": False}, "judged on what it was trained on"),
        ({"is_finished": False}, "not finished"),
        ({"episodes": 4}, "only 4 episode(s) judge it"),
        ({"cut_off": 0.5}, "50% of what counts lies after the ends"),
        ({"estimator_error": Interval(1, 0.5, 1.5)}, "misses the behaviour's known return by +1"),
        ({"rank_correlation": 0.1}, "rank correlation 0.10"),
        ({"value_bias": Interval(-1, -1.5, -0.5)}, "below the behaviour's returns by -1"),
        ({"signs": ("held-out loss rises",)}, "held-out loss rises"),
    ],
)
def test_what_only_looks_odd_is_a_remark(changes: dict[str, object], words: str) -> None:
    odd = replace(FINE, **changes)  # type: ignore[arg-type]
    assert vetoes(odd) == []
    (remark,) = remarks(odd)
    assert words in remark
