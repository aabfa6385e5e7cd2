"""Intervals for counts of successes."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log, log1p, sqrt

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
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


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a success rate: it holds for any true rate.

    Each end is the rate at which a result so extreme, or more so, has probability 2.5 %.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")

    def at_least(rate: float) -> float:
        return 1 - _at_most(successes - 1, trials, rate)

    def at_most(rate: float) -> float:
        return _at_most(successes, trials, rate)

    low = 0.0 if successes == 0 else _crossing(lambda rate: at_least(rate) > 0.025)
    high = 1.0 if successes == trials else _crossing(lambda rate: at_most(rate) < 0.025)
    return low, high


def paired_interval(
    both: float, first: float, second: float, neither: float
) -> tuple[float, float]:
    """95 % interval of the difference of two success rates on the same trials.

    Newcombe, Improved confidence intervals for the difference between binomial proportions
    based on paired data, 1998, method 10.

    Args:
        both, first, second, neither: trials in which both, only one, or none succeeded; whole
            numbers, or shares of an effective number.
    """
    trials = both + first + second + neither
    counts = both + first, both + second
    rates = [count / trials for count in counts]
    (low_1, high_1), (low_2, high_2) = (wilson_interval(count, trials) for count in counts)
    product = counts[0] * counts[1] * (second + neither) * (first + neither)
    covariance = float(both * neither - first * second)
    if covariance > 0:
        covariance = max(0.0, covariance - trials / 2)
    correlation = covariance / sqrt(product) if product else 0.0
    gap = rates[0] - rates[1]

    def reach(down: float, up: float) -> float:
        return sqrt(max(0.0, down**2 - 2 * correlation * down * up + up**2))

    return (
        gap - reach(rates[0] - low_1, high_2 - rates[1]),
        gap + reach(high_1 - rates[0], rates[1] - low_2),
    )


def _at_most(successes: int, trials: int, rate: float) -> float:
    """Probability of so many successes or fewer, for a rate within (0, 1)."""
    terms = (
        lgamma(trials + 1)
        - lgamma(k + 1)
        - lgamma(trials - k + 1)
        + k * log(rate)
        + (trials - k) * log1p(-rate)
        for k in range(successes + 1)
    )
    return min(1.0, sum(exp(term) for term in terms))


def _crossing(is_beyond: Callable[[float], bool]) -> float:
    """The rate within (0, 1) from which on `is_beyond` holds, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    return (low + high) / 2
