"""Two policies on the same seeds: each episode is a pair, so their luck cancels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import ContractError
from iql_ros.statistics import paired_interval
from sim.episode import Episode
from sim.gate import Run

RESAMPLES = 4000
POOLED = "all that ask for success"

Pairs = Sequence[tuple[Episode, Episode]]
Gap = tuple[float, float, float]
"""A difference, first less second, and its 95 % interval."""


@dataclass(frozen=True)
class Paired:
    """One scenario, or several together, first policy less second.

    An episode has the same start in every scenario. Where scenarios are together, their pairs
    therefore count as only so many as there are starts, and are drawn again by start.

    Attributes:
        scenario: its name.
        episodes: pairs.
        successes: of the first and the second.
        only: episodes in which only the first, only the second succeeded.
        gap: of the success rates (Newcombe, paired).
        return_gap: of the mean returns (bootstrap).
        interventions_gap: of the mean share of ticks in which the action was not the policy's.
    """

    scenario: str
    episodes: int
    successes: tuple[int, int]
    only: tuple[int, int]
    gap: Gap
    return_gap: Gap
    interventions_gap: Gap


def compare(first: Run, second: Run) -> list[Paired]:
    """Compares two runs of the same suite and seed: each scenario, then all that ask for success.

    Raises:
        ContractError: suites or seeds differ.
    """
    if (first.suite.digest, first.seed) != (second.suite.digest, second.seed):
        raise ContractError(
            f"the first run is of suite {first.suite.suite!r} with seed {first.seed}, the second "
            f"of {second.suite.suite!r} with {second.seed}: only the same can be paired"
        )
    pairs = {
        name: list(zip(first.episodes[name], second.episodes[name], strict=True))
        for name in first.episodes
    }
    rows = [_paired(name, some) for name, some in pairs.items()]
    asking = [n for n, scenario in first.suite.scenarios.items() if scenario.must.success]
    if len(asking) > 1:
        rows.append(_paired(POOLED, [pair for name in asking for pair in pairs[name]]))
    return rows


def _paired(name: str, pairs: Pairs) -> Paired:
    won = [(ours.outcome.success, theirs.outcome.success) for ours, theirs in pairs]
    both, only_first = won.count((True, True)), won.count((True, False))
    only_second, neither = won.count((False, True)), won.count((False, False))
    starts = np.array([ours.outcome.episode for ours, _ in pairs])
    returns = [ours.outcome.total_reward - theirs.outcome.total_reward for ours, theirs in pairs]
    share = len(np.unique(starts)) / len(pairs)
    counts = (both, only_first, only_second, neither)
    return Paired(
        scenario=name,
        episodes=len(pairs),
        successes=(both + only_first, both + only_second),
        only=(only_first, only_second),
        gap=(
            (only_first - only_second) / len(pairs),
            *paired_interval(*(share * count for count in counts)),
        ),
        return_gap=_mean(returns, starts),
        interventions_gap=_mean([a.interventions - b.interventions for a, b in pairs], starts),
    )


def _mean(differences: Sequence[float], starts: NDArray[np.int64]) -> Gap:
    """Mean, and its interval from drawing the starts again with all their episodes."""
    _, of = np.unique(starts, return_inverse=True)
    sums, counts = np.bincount(of, differences), np.bincount(of)
    # A seed of its own, so that the same two runs give the same interval.
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean(differences)), float(low), float(high)
