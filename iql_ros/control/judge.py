"""Whether the policy may act now, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundles.format import Support
from iql_ros.contract import Contract
from iql_ros.control.inbox import Inbox
from iql_ros.control.memory import Memory
from iql_ros.control.status import Status
from iql_ros.control.support import SupportCheck
from iql_ros.envelope import Envelope
from iql_ros.errors import ContractError
from iql_ros.finite import is_finite
from iql_ros.sampler import Sample

Array = NDArray[np.float64]
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Fault = tuple[Status, str]


@dataclass
class Look:
    """What one tick has found out so far.

    Attributes:
        sample: what the topics hold.
        dt_s: time since the last decision, seconds.
        observation: shape (O,), float32; None if the sample is not fit for the policy.
        proposed: the policy's answer, shape (A,); None if it was not asked, or raised.
        policy_s: how long it took, seconds.
        distance: of the observation from the training data; None if not looked at.
        remark: what is not in order, yet no fault.
        share: how much of the policy's action may be taken, 0 to 1.
    """

    sample: Sample
    dt_s: float
    observation: NDArray[np.float32] | None = None
    proposed: Array | None = None
    policy_s: float = 0.0
    distance: float | None = None
    remark: Fault | None = None
    share: float = 1.0


class Judge:
    """Looks in the order of `Status`; the first fault ends it. Nothing here raises once made."""

    def __init__(
        self,
        contract: Contract,
        policy: Policy,
        envelope: Envelope,
        support: Support | None,
        clock: Callable[[], float],
    ) -> None:
        """See `Controller`.

        Raises:
            ContractError: the contract wants a support check and there is no `support`.
        """
        self._rules = rules = contract.safety
        self._names = contract.observation_names
        self._policy, self._envelope, self._clock = policy, envelope, clock
        self._support = None
        if rules.support.action != "off":
            if support is None:
                raise ContractError(
                    f"safety.support.action is {rules.support.action}, but there are no support "
                    f"statistics: export the bundle with held-out episodes, or declare off"
                )
            self._support = SupportCheck(support)

    def fault(self, t_ns: int, inbox: Inbox, memory: Memory, look: Look) -> Fault | None:
        """Why the policy may not act at t, or None; completes `look` and counts in `memory`."""
        return (
            _forbidden(t_ns, inbox, memory)
            or self._unfit(t_ns, inbox, look)
            or self._unsupported(memory, look)
            or self._unanswered(memory, look)
            or self._unrecovered(memory)
        )

    def _unfit(self, t_ns: int, inbox: Inbox, look: Look) -> Fault | None:
        """A fault of what the policy would see: missing, stale, frozen, not finite."""
        sample = look.sample
        if not sample.status.acts:
            return sample.status, "; ".join([sample.detail, *inbox.problems])
        frozen = inbox.frozen(t_ns)
        if frozen:
            return Status.FROZEN, frozen
        look.observation = observation = sample.observation.astype(np.float32)
        if not is_finite(observation):
            i = int(np.flatnonzero(~np.isfinite(observation))[0])
            name, value = self._names[i], sample.observation[i]
            return Status.NOT_FINITE, f"field {name!r} is {value}: not finite in float32"
        return None

    def _unsupported(self, memory: Memory, look: Look) -> Fault | None:
        """Outside of the policy's data for long enough: a fault, or a remark, as declared."""
        check, rule = self._support, self._rules.support
        if check is None:
            return None
        assert look.observation is not None
        look.distance = distance = check.distance(look.observation)
        memory.outside = 0 if distance <= check.threshold else memory.outside + 1
        if memory.outside < rule.persistence:
            return None
        detail = (
            f"outside of the training data: distance {distance:.3g}, limit {check.threshold:.3g}"
        )
        if rule.action == "fallback":
            return Status.OUTSIDE, detail
        if rule.action == "slow":
            look.share = rule.speed
        look.remark = (Status.SLOWED if rule.action == "slow" else Status.UNUSUAL), detail
        return None

    def _unanswered(self, memory: Memory, look: Look) -> Fault | None:
        """A fault of the policy: raised, too slow, or of no use."""
        assert look.observation is not None
        start = self._clock()
        try:
            look.proposed = np.array(self._policy(look.observation), np.float64)
        except Exception as error:  # any fault of a backend must end in the fallback
            return Status.POLICY, f"the policy raised {error!r}"
        finally:
            look.policy_s = self._clock() - start
        slow = self._overran(memory, look)
        if slow is not None:
            return slow
        useless = self._envelope.fault(look.proposed)
        return (Status.POLICY, useless) if useless else None

    def _overran(self, memory: Memory, look: Look) -> Fault | None:
        """Late answers, too many in a row; fewer are a remark."""
        budget_s = self._rules.policy_budget_s
        if budget_s is None or look.policy_s <= budget_s:
            memory.overruns = 0
            return None
        memory.overruns += 1
        detail = f"the policy took {look.policy_s * 1e3:.3g} ms, budget {budget_s * 1e3:.3g} ms"
        if memory.overruns >= self._rules.overruns:
            return Status.BUDGET, f"{detail}, {memory.overruns} times in a row"
        look.remark = look.remark or (Status.LATE, detail)
        return None

    def _unrecovered(self, memory: Memory) -> Fault | None:
        """After a fault: not sound for long enough, or nobody has released the policy."""
        wanted = self._rules.recover_after
        if memory.fallen_ns is None:
            return None
        memory.sound += 1
        if wanted == "manual":
            detail = "" if memory.released else "sound again: release the policy by hand"
        else:
            detail = "" if memory.sound >= wanted else f"sound tick {memory.sound} of {wanted}"
        return (Status.RECOVERING, detail) if detail else None


def halted(memory: Memory) -> Fault | None:
    """The fault that a latched emergency stop is, or None."""
    return None if memory.halted is None else (Status.HALTED, f"emergency stop: {memory.halted}")


def _forbidden(t_ns: int, inbox: Inbox, memory: Memory) -> Fault | None:
    """A person's word against acting."""
    released = inbox.released(t_ns)
    return halted(memory) or ((Status.DISABLED, released) if released else None)
