"""A veto with its reasons, or no objection; never an approval.

No estimate from logs is reliable alone (Fu et al., 2021, DOPE): these rules look for what
would surely go wrong, and leave it to the simulation gate and to people to say what is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.evaluation.bootstrap import Interval

MOST_OUTSIDE = 0.2
"""Share of steps whose state with the policy's action resembles nothing that was recorded."""
LITTLE_ORDER = 0.2
"""A rank correlation below this says that predicted values do not order states."""
FEW_EPISODES = 20
"""Drawing fewer again says little about others like them."""
MUCH_CUT_OFF = 0.05
"""Above this share of an episode's return is missing from it, and it is no check any more."""

CAVEAT = (
    "Logs can rule a policy out; they cannot show that it is safe or good. Next: simulation, "
    "then shadow mode."
)


@dataclass(frozen=True)
class Evidence:
    """What the rules look at.

    Attributes:
        episodes: how many judge.
        gain: FQE of the policy less that of the recorded behaviour, paired by episode.
        outside_pairs, outside_recorded: share of steps whose state with the policy's, or the
            recorded, action lies outside the support of recorded pairs.
        largest_value: of what the run's critics predict, the value farthest out, or None.
        value_bounds: what rewards and discount allow.
        rank_correlation: of the run's values with the returns, or None.
        value_bias: predicted less returned at first steps, or None.
        estimator_error: FQE of the behaviour less its mean return.
        cut_off: share of a return that lies after the end of its episode.
        is_unseen: whether the episodes were held out.
        is_finished: whether the training came to its end.
        signs: what the training curves say.
    """

    episodes: int
    gain: Interval
    outside_pairs: float
    outside_recorded: float
    largest_value: float | None
    value_bounds: tuple[float, float]
    rank_correlation: float | None
    value_bias: Interval | None
    estimator_error: Interval
    cut_off: float
    is_unseen: bool
    is_finished: bool
    signs: tuple[str, ...]


def vetoes(evidence: Evidence) -> list[str]:
    """The reasons against running this policy; empty for no objection."""
    found = []
    if evidence.gain.is_negative:
        found.append(
            f"it is estimated to earn less than what was recorded: difference {_of(evidence.gain)}"
        )
    if evidence.outside_pairs > MOST_OUTSIDE:
        found.append(
            f"in {evidence.outside_pairs:.0%} of the steps state and action together lie outside "
            f"the support of the data (recorded actions: {evidence.outside_recorded:.1%}; at most "
            f"{MOST_OUTSIDE:.0%} pass): no estimate reaches there"
        )
    low, high = evidence.value_bounds
    value = evidence.largest_value
    slack = 0.01 * (high - low)
    if value is not None and not low - slack <= value <= high + slack:
        found.append(
            f"its critics predict a value of {value:.4g}, rewards and discount allow {low:.4g} to "
            f"{high:.4g}: they have diverged, and the policy was drawn by them"
        )
    return found


def remarks(evidence: Evidence) -> list[str]:
    """What does not rule the policy out, but should be looked at."""
    found = list(evidence.signs)
    if not evidence.is_unseen:
        found.append("it was judged on what it was trained on: set held_out_fraction above 0")
    if evidence.episodes < FEW_EPISODES:
        found.append(
            f"only {evidence.episodes} episode(s) judge it, so the intervals are too narrow: hold "
            f"out more, or give a dataset that the run has not seen"
        )
    if not evidence.is_finished:
        found.append("the training is not finished")
    error = evidence.estimator_error
    if evidence.cut_off > MUCH_CUT_OFF:
        found.append(
            f"{evidence.cut_off:.0%} of what counts lies after the ends of the episodes, so the "
            f"estimator could not be checked against their returns: a smaller --discount can be"
        )
    elif error.is_positive or error.is_negative:
        found.append(
            f"the estimator misses the behaviour's known return by {_of(error)}: expect no less "
            f"of its estimate for the policy"
        )
    if evidence.rank_correlation is not None and evidence.rank_correlation < LITTLE_ORDER:
        found.append(
            f"predicted values hardly order states by what was then earned: rank correlation "
            f"{evidence.rank_correlation:.2f}"
        )
    if evidence.value_bias is not None and evidence.value_bias.is_negative:
        found.append(
            f"predicted values lie below the behaviour's returns by {_of(evidence.value_bias)}: "
            f"the critics have not learnt what the data shows; train longer"
        )
    return found


def _of(interval: Interval) -> str:
    return f"{interval.mean:+.4g} ({interval.low:+.4g} to {interval.high:+.4g})"
