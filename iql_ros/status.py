"""What became of one tick."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """Outcome of a tick; each but OK and LIMITED gives the safe action, or nothing at all."""

    OK = "ok"
    LIMITED = "limited"
    """The policy's action was clipped to its limits or its slew."""
    WAITING = "waiting"
    """A needed topic has never had a message: nothing is published."""
    STALE = "stale"
    """A field is older than the contract allows."""
    NOT_FINITE = "not finite"
    """A field is NaN or infinite."""
    POLICY = "policy"
    """The policy raised, or gave an action that is not finite."""

    @property
    def acts(self) -> bool:
        """Whether the policy's action was used."""
        return self in (Status.OK, Status.LIMITED)
