"""Intervals for counts of successes."""

from __future__ import annotations

from math import sqrt

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    rate = successes / trials
    scale = 1 + Z95**2 / trials
    centre = (rate + Z95**2 / (2 * trials)) / scale
    spread = Z95 / scale * sqrt(rate * (1 - rate) / trials + Z95**2 / (4 * trials**2))
    low = 0.0 if successes == 0 else centre - spread
    high = 1.0 if successes == trials else centre + spread
    return low, high


def difference_interval(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the difference of two success rates (Newcombe 1998, method 10).

    Args:
        first, second: successes and trials.
    """
    rates = [successes / trials for successes, trials in (first, second)]
    (low_1, high_1), (low_2, high_2) = wilson_interval(*first), wilson_interval(*second)
    gap = rates[0] - rates[1]
    return (
        gap - sqrt((rates[0] - low_1) ** 2 + (high_2 - rates[1]) ** 2),
        gap + sqrt((high_1 - rates[0]) ** 2 + (rates[1] - low_2) ** 2),
    )
