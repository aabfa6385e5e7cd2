"""What a policy would have earned, by every estimator there is, beside what was earned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import stochastic
from training.evaluation.bootstrap import Interval, bootstrap_mean
from training.evaluation.doubly_robust import DoublyRobust
from training.evaluation.fqe import FqeSettings, fit_q
from training.evaluation.judged import Judged, policy_transitions
from training.evaluation.returns import Recorded
from training.evaluation.values import policy_values, recorded_values


@dataclass(frozen=True)
class Estimates:
    """Discounted returns from the first steps of E episodes.

    Attributes:
        policy, behaviour: FQE of the policy and of whoever was recorded, by member, (M, E).
        recorded: what the episodes earned.
        robust: of the policy with its noise; None where it has no density.
        robust_missing: why there is none.
    """

    policy: NDArray[np.float64]
    behaviour: NDArray[np.float64]
    recorded: Recorded
    robust: DoublyRobust | None
    robust_missing: str | None

    @property
    def gain(self) -> Interval:
        """The policy's estimate less the behaviour's, paired by episode."""
        return bootstrap_mean(self.policy - self.behaviour)

    @property
    def error(self) -> Interval:
        """The behaviour's estimate less its known return."""
        return bootstrap_mean(self.behaviour - self.recorded.returns)

    def facts(self) -> dict[str, Any]:
        """Figures for the report."""
        return {
            "policy": asdict(bootstrap_mean(self.policy)),
            "behaviour": asdict(bootstrap_mean(self.behaviour)),
            "gain": asdict(self.gain),
            "recorded_return": asdict(bootstrap_mean(self.recorded.returns)),
            "estimator_error": asdict(self.error),
            "cut_off": self.recorded.cut_off,
            "doubly_robust": None if self.robust is None else asdict(self.robust),
            "doubly_robust_usable": self.robust is not None and self.robust.is_usable,
            "doubly_robust_missing": self.robust_missing,
        }


def estimate(
    judged: Judged, discount: float, settings: FqeSettings, say: Callable[[str], None]
) -> Estimates:
    """Estimates on the episodes that judge, with Q fitted on all there are.

    Args:
        judged: the run and its episodes.
        discount: gamma.
        settings: of the fits; the behaviour's density gets half as many updates.
        say: hears what is being done.
    """
    say("value of the policy")
    q = fit_q(policy_transitions(judged.run, judged.all_episodes), discount, settings)
    policy = policy_values(q, judged.run, judged.episodes)
    say("value of the recorded behaviour")
    behaviour = recorded_values(
        judged.run, judged.all_episodes, judged.episodes, discount, settings
    )
    say("importance ratios")
    missing = stochastic.why_not(judged.run)
    robust = None if missing else stochastic.estimate(judged, q, discount, settings.steps // 2)
    return Estimates(policy, behaviour, Recorded.of(judged.episodes, discount), robust, missing)
