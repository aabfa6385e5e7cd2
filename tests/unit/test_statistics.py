from itertools import product

import numpy as np
import pytest

from iql_ros.statistics import exact_interval, paired_interval, wilson_interval


def test_exact_intervals_are_those_of_the_tables():
    # Clopper and Pearson 1934; Agresti and Coull 1998 for 0 of 10; the rule of three, exact.
    assert exact_interval(0, 10) == pytest.approx((0, 0.3085), abs=5e-5)
    assert exact_interval(10, 10) == pytest.approx((0.6915, 1), abs=5e-5)
    assert exact_interval(81, 263) == pytest.approx((0.2527, 0.3676), abs=2e-4)
    assert exact_interval(40, 40)[0] == pytest.approx(0.025 ** (1 / 40), abs=1e-12)


def test_an_exact_interval_holds_the_true_rate_at_least_as_often_as_it_says():
    rng, trials = np.random.default_rng(0), 40
    intervals = [exact_interval(count, trials) for count in range(trials + 1)]
    for rate in (0.5, 0.9, 0.98):
        counts = rng.binomial(trials, rate, 20_000)
        held = np.mean([intervals[n][0] <= rate <= intervals[n][1] for n in counts])
        assert held >= 0.95 - 0.005  # three deviations of 20,000 draws


def test_an_exact_interval_is_wider_than_wilsons_and_mirrors():
    for count in range(31):
        low, high = exact_interval(count, 30)
        assert low <= wilson_interval(count, 30)[0] + 1e-12 or count == 0
        assert exact_interval(30 - count, 30) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        exact_interval(successes, trials)


def test_paired_intervals_are_those_of_newcombes_paper():
    # Newcombe 1998 (paired), table II, method 10.
    assert paired_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=2e-3)
    assert paired_interval(54, 0, 0, 0) == pytest.approx((-0.0664, 0.0664), abs=2e-3)


def test_a_paired_interval_is_narrower_where_the_pairs_agree_and_always_holds_the_gap():
    agreeing, opposed = paired_interval(40, 5, 5, 50), paired_interval(5, 40, 40, 15)
    assert agreeing[1] - agreeing[0] < opposed[1] - opposed[0]
    for both, first, second, neither in product(range(4), repeat=4):
        trials = both + first + second + neither
        if trials:
            low, high = paired_interval(both, first, second, neither)
            assert -1 - 1e-9 <= low <= (first - second) / trials <= high <= 1 + 1e-9
