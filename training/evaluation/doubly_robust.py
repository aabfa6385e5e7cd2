"""Weighted doubly robust estimate (Thomas and Brunskill, 2016), per decision.

    J = mean V(s_0) + sum_t gamma^t sum_i w_it (r_it + gamma m_it V(s_i,t+1) - Q(s_it, a_it))

w_it is the product of the ratios pi / b up to t, normalised over the episodes i. Where the
model of values is exact the sum vanishes, where the ratios are exact they correct the
model. With Q = V = 0 it is weighted importance sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import COVERAGE, Interval

Doubles = NDArray[np.float64]

RATIO_MAX = 10.0
"""A single decision's ratio is kept within [1 / RATIO_MAX, RATIO_MAX]: less variance, some bias."""
DRAWS = 500
LEAST_EPISODES = 10.0
"""With fewer effective episodes the estimate is that of a handful of logs."""


@dataclass(frozen=True)
class Decisions:
    """N recorded steps of E episodes, as a policy and its values see them.

    Attributes:
        log_ratios: log pi(a|s) - log b(a|s), (N,).
        rewards, masks: (N,); a mask is 0 at a terminal and 1 elsewhere.
        q: Q(s, a) of the recorded action, (N,).
        v, next_v: the mean of Q over the policy's actions in s and s', (N,).
        starts, ends: first row and one past the last row of each episode, (E,).
    """

    log_ratios: Doubles
    rewards: Doubles
    masks: Doubles
    q: Doubles
    v: Doubles
    next_v: Doubles
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True)
class DoublyRobust:
    """The estimate, and of how many episodes it is in effect the mean.

    Attributes:
        value: discounted return of the policy with its noise.
        effective_episodes: (sum w)^2 / sum w^2, averaged over time with gamma^t.
    """

    value: Interval
    effective_episodes: float

    @property
    def is_usable(self) -> bool:
        """Whether it rests on more than a handful of episodes."""
        return self.effective_episodes >= LEAST_EPISODES


def doubly_robust(decisions: Decisions, discount: float, seed: int = 0) -> DoublyRobust:
    """The estimate with its episode-bootstrap interval."""
    ratios, errors = _by_time(decisions, discount)
    v0 = decisions.v[decisions.starts]
    episodes = len(v0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=DRAWS)
    draws = _estimates(counts.astype(np.float64), v0, ratios, errors)
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    mean = _estimates(np.ones((1, episodes)), v0, ratios, errors)[0]
    effective = ratios.sum(axis=0) ** 2 / np.square(ratios).sum(axis=0)
    weight = discount ** np.arange(ratios.shape[1])
    return DoublyRobust(
        Interval(float(mean), float(low), float(high)),
        float(np.average(effective, weights=weight)),
    )


def _by_time(decisions: Decisions, discount: float) -> tuple[Doubles, Doubles]:
    """Products of ratios up to each time, and discounted errors of the model, (E, T) each.

    After an episode's end its product stays and its errors are 0. Products are divided by the
    largest of their time, which the normalisation over episodes takes out again.
    """
    starts, ends = decisions.starts, decisions.ends
    episodes, length = len(starts), int((ends - starts).max())
    rows = starts[:, None] + np.arange(length)
    inside = rows < ends[:, None]
    rows = np.where(inside, rows, 0)
    bound = np.log(RATIO_MAX)
    logs = np.where(inside, decisions.log_ratios.clip(-bound, bound)[rows], 0.0).cumsum(axis=1)
    error = decisions.rewards + discount * decisions.masks * decisions.next_v - decisions.q
    errors = np.where(inside, error[rows], 0.0) * discount ** np.arange(length)
    assert logs.shape == (episodes, length)
    return np.exp(logs - logs.max(axis=0)), errors


def _estimates(counts: Doubles, v0: Doubles, ratios: Doubles, errors: Doubles) -> Doubles:
    """One estimate for each row of `counts` (D, E): how often each episode is taken."""
    total = np.maximum(counts @ ratios, 1e-300)
    corrections = (counts @ (ratios * errors) / total).sum(axis=1)
    return counts @ v0 / counts.sum(axis=1) + corrections
