"""The command of a tick in which the policy may act: its action, slowed, blended, bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.control.judge import Look
from iql_ros.control.memory import Memory
from iql_ros.control.status import Status
from iql_ros.envelope import Envelope, Enveloped, Pull
from iql_ros.sampler import SECOND_NS

Array = NDArray[np.float64]


class Acting:
    """Takes one contract's robot from where it is towards what the policy wants."""

    def __init__(self, contract: Contract, envelope: Envelope) -> None:
        """Takes the safe action, what measures it, and the time of a blend from `contract`."""
        self._envelope = envelope
        self._low, self._high = contract.action_low, contract.action_high
        self._safe, self._measured = contract.action_safe, contract.measured
        self._blend_s = contract.safety.blend_s
        self._has_choices = contract.choices is not None

    def __call__(self, t_ns: int, speed: float, look: Look, memory: Memory) -> Enveloped:
        """What is published of the policy's answer; a fallback ends, a blend may begin.

        Args:
            t_ns: now.
            speed: see `Controller.tick`.
            look: complete, without a fault.
            memory: of the controller.
        """
        assert look.proposed is not None
        rest = self._rest(look.sample.observation)
        start = rest if memory.previous is None else memory.previous
        if memory.previous is None or memory.fallen_ns is not None:
            memory.blend_ns, memory.blend_from = t_ns, start
        memory.fallen_ns, memory.fallen_from = None, None
        pulls = []
        share = look.share * self._valid(speed)
        if share < 1:
            pulls.append(Pull(Status.SLOWED, rest, share))
        blended_s = (t_ns - memory.blend_ns) / SECOND_NS
        if blended_s < self._blend_s and memory.blend_from is not None:
            pulls.append(Pull(Status.BLENDING, memory.blend_from, blended_s / self._blend_s))
        dt_s = 0.0 if memory.previous is None else look.dt_s
        result = self._envelope.bound(look.proposed, start, dt_s, pulls)
        if look.remark is None:
            return result
        status, remark = look.remark
        detail = "; ".join(filter(None, [remark, result.detail]))
        return result._replace(status=status, detail=detail)

    def _valid(self, speed: float) -> float:
        is_share = 0 <= speed <= 1 and (speed in (0, 1) or not self._has_choices)
        return speed if is_share else 0.0

    def _rest(self, observation: Array) -> Array:
        """Where the robot is if nothing moves it: the safe action, measured positions in it."""
        ours, theirs = self._measured
        if not len(ours):
            return self._safe
        rest = self._safe.copy()
        rest[ours] = observation[theirs]
        return np.minimum(np.maximum(rest, self._low), self._high)
