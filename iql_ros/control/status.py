"""What became of one tick."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """Outcome of a tick, in the order in which the envelope looks.

    The first group acts: what is published comes from the policy. The second gives the
    fallback, or nothing at all.
    """

    OK = "ok"
    UNUSUAL = "unusual"
    """The observation is outside of the data that the policy knows; the contract says: warn."""
    LATE = "late"
    """The policy's answer took longer than its budget, not yet often enough to be a fault."""
    LIMITED = "limited"
    """The policy's action was clipped to its limits."""
    SLOWED = "slowed"
    """Only a share of the policy's action was taken: by the speed, or outside of the data."""
    BLENDING = "blending"
    """After a start or a recovery: on the way to the policy's action."""
    SLEWED = "slewed"
    """The change from the last command was more than the slew allows."""

    HALTED = "halted"
    """The emergency stop is latched."""
    DISABLED = "disabled"
    """The enable switch is released, lost or old."""
    WAITING = "waiting"
    """A needed topic has never had a message: nothing is published."""
    STALE = "stale"
    """A field is older than the contract allows, or the trigger is silent."""
    FROZEN = "frozen"
    """Messages come, but their values have not changed for longer than the contract allows."""
    NOT_FINITE = "not finite"
    """A field is NaN or infinite, in float64 or in the policy's float32."""
    OUTSIDE = "outside"
    """The observation is outside of the data that the policy knows, for too long."""
    BUDGET = "budget"
    """The policy's answers took longer than their budget, too often in a row."""
    POLICY = "policy"
    """The policy raised, or gave an action that is not finite, or none of the choices."""
    RECOVERING = "recovering"
    """All is sound again, but not yet for as long as the contract asks, or nobody said so."""

    @property
    def acts(self) -> bool:
        """Whether the policy's action was used."""
        return self in _ACTING


_ACTING = frozenset(
    {
        Status.OK,
        Status.UNUSUAL,
        Status.LATE,
        Status.LIMITED,
        Status.SLOWED,
        Status.BLENDING,
        Status.SLEWED,
    }
)
