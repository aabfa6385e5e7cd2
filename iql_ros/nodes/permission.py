"""Whether a bundle may move the robot: what the simulation gate says, and who overrules it."""

from __future__ import annotations

from dataclasses import dataclass

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import why_not
from iql_ros.nodes.settings import Settings

OVERRULE = "parameter 'allow_ungated' overrules the gate"


@dataclass(frozen=True)
class Permission:
    """The answer.

    Attributes:
        gate: the state of the gate in words, for diagnostics.
        refusal: why the bundle must not be activated; None if it may.
        warning: what has to be said at every start; None if nothing.
    """

    gate: str
    refusal: str | None = None
    warning: str | None = None


def ask(bundle: Bundle, settings: Settings, *, uses_sim_time: bool) -> Permission:
    """Asks the bundle's gate record, where it matters: active, outside simulation."""
    reason = why_not(bundle, bundle.gate)
    if reason is None:
        assert bundle.gate is not None
        suite = bundle.gate.bound_to.suite
        return Permission(
            f"passed {bundle.gate.episodes} episodes of suite {suite.name} "
            f"({suite.sha256[:12]}) in world {bundle.gate.bound_to.world.name}"
        )
    if settings.mode != "active":
        return Permission(f"not asked in shadow mode: {reason}")
    if uses_sim_time:
        return Permission(f"not asked in simulated time: {reason}")
    if settings.allow_ungated:
        return Permission(
            f"overruled by allow_ungated: {reason}",
            warning=f"UNGATED, as parameter 'allow_ungated' says: {reason}",
        )
    return Permission(f"refused: {reason}", refusal=f"{reason} ({OVERRULE})")
