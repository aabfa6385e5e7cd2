"""Two policies on the same seeds: each episode is a pair, so their luck cancels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iql_ros.errors import ContractError
from iql_ros.statistics import paired_interval
from sim.gate import Run

RESAMPLES = 4000


@dataclass(frozen=True)
class Paired:
    """One scenario, first policy less second.

    Attributes:
        scenario: its name.
        episodes: pairs.
        successes: of the first and the second.
        only: episodes in which only the first, only the second succeeded.
        gap: of the success rates, and its 95 % interval (Newcombe, paired).
        return_gap: mean difference of the returns, and its 95 % interval (bootstrap of pairs).
    """

    scenario: str
    episodes: int
    successes: tuple[int, int]
    only: tuple[int, int]
    gap: tuple[float, float, float]
    return_gap: tuple[float, float, float]


def compare(first: Run, second: Run) -> list[Paired]:
    """Compares two runs of the same suite and seed, scenario by scenario.

    Raises:
        ContractError: suites or seeds differ.
    """
    if (first.suite.digest, first.seed) != (second.suite.digest, second.seed):
        raise ContractError(
            f"the first run is of suite {first.suite.suite!r} with seed {first.seed}, the second "
            f"of {second.suite.suite!r} with {second.seed}: only the same can be paired"
        )
    return [_paired(name, first, second) for name in first.episodes]


def _paired(name: str, first: Run, second: Run) -> Paired:
    ours = [episode.outcome for episode in first.episodes[name]]
    theirs = [episode.outcome for episode in second.episodes[name]]
    pairs = [(a.success, b.success) for a, b in zip(ours, theirs, strict=True)]
    both, only_first = pairs.count((True, True)), pairs.count((True, False))
    only_second, neither = pairs.count((False, True)), pairs.count((False, False))
    returns = np.array([a.total_reward - b.total_reward for a, b in zip(ours, theirs, strict=True)])
    # A seed of its own, so that the same two runs give the same interval.
    draws = np.random.default_rng(0).integers(len(returns), size=(RESAMPLES, len(returns)))
    low, high = np.percentile(returns[draws].mean(axis=1), [2.5, 97.5])
    return Paired(
        scenario=name,
        episodes=len(pairs),
        successes=(both + only_first, both + only_second),
        only=(only_first, only_second),
        gap=(
            (only_first - only_second) / len(pairs),
            *paired_interval(both, only_first, only_second, neither),
        ),
        return_gap=(float(returns.mean()), float(low), float(high)),
    )
