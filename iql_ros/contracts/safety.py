"""The `safety` block of a contract: when the policy may act, and what is published when not.

Every key is optional. Without the block a fault gives the safe action at once, and the first
sound tick ends it. `docs/safety.md` says what each key promises and what it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field as Key
from pydantic import model_validator
from typing_extensions import Self

from iql_ros.contracts.paths import component_labels
from iql_ros.contracts.schema import Name, Strict
from iql_ros.errors import ContractError

if TYPE_CHECKING:
    from iql_ros.contract import Contract


class SupportRule(Strict):
    """What to do where the policy has no data. The threshold comes with the bundle."""

    action: Literal["off", "warn", "slow", "fallback"] = "off"
    persistence: int = Key(3, ge=1, description="after so many ticks outside in a row")
    speed: float = Key(0.3, ge=0, lt=1, description="with slow: share of the policy's command")


class Enable(Strict):
    """A switch that a person holds: while it is released, lost or old, the policy may not act."""

    topic: Name = Key(description="alias of its topic, which needs max_age_s")
    path: str = Key(description="the one value that is the switch, e.g. buttons[5]")
    equals: float | None = Key(None, description="the policy may act while the value is this")
    at_least: float | None = Key(None, description="... or while it is not below this")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.equals is None) == (self.at_least is None):
            raise ValueError("give either equals or at_least, not both and not neither")
        try:
            size = len(component_labels(self.path))
        except ContractError as error:
            raise ValueError(str(error)) from None
        if size != 1:
            raise ValueError(f"path {self.path!r} names {size} values, a switch has one")
        return self


class Safety(Strict):
    """The rules under which the policy acts."""

    fallback: Literal["safe", "hold", "zero", "ramp", "silent"] = Key(
        "safe",
        description="what is published when the policy may not act: the safe action; the last "
        "command for hold_s, then safe; zeros; a ramp to safe; or safe, then nothing",
    )
    hold_s: float = Key(0.5, gt=0, le=60, description="with hold: for how long")
    ramp_s: float | None = Key(
        None, gt=0, le=60, description="with ramp: its least duration; the slew limit holds too"
    )
    silent_after_s: float = Key(0.0, ge=0, description="with silent: safe so long, at least once")
    recover_after: int | Literal["manual"] = Key(
        1, description="the policy acts again after so many sound ticks in a row, or when told"
    )
    support: SupportRule = SupportRule()
    policy_budget_s: float | None = Key(None, gt=0, description="a policy's answer is late after")
    overruns: int = Key(3, ge=1, description="so many late answers in a row are a fault")
    blend_s: float = Key(
        0.0, ge=0, le=60, description="from where the robot is to the policy's command, at a start"
    )
    enable: Enable | None = None

    @model_validator(mode="after")
    def _keys_of_their_kind(self) -> Self:
        owners = {"hold_s": "hold", "ramp_s": "ramp", "silent_after_s": "silent"}
        for key, owner in owners.items():
            if key in self.model_fields_set and self.fallback != owner:
                raise ValueError(
                    f"{key} belongs to fallback: {owner}, here it is {self.fallback}: "
                    f"leave out one of the two"
                )
        if self.recover_after != "manual" and self.recover_after < 1:
            raise ValueError(f"recover_after = {self.recover_after} must be 1 or more, or manual")
        return self


def check_speed(contract: Contract, speed: float) -> None:
    """Raises ContractError unless `speed` is a share of the way to the policy's action."""
    if not 0 <= speed <= 1:
        raise ContractError(f"speed = {speed} must be 0 to 1, a share of the policy's command")
    if contract.choices is not None and speed not in (0, 1):
        raise ContractError(
            f"speed = {speed}, but action {contract.actions[0].name!r} has choices and nothing "
            f"between them: use 0 (the safe choice) or 1"
        )


def check_safety(contract: Contract) -> None:
    """Raises ValueError where the safety block does not fit the rest of the contract."""
    rules = contract.safety
    if rules.fallback == "zero":
        _check_zero(contract)
    if rules.fallback == "ramp" and rules.ramp_s is None and np.isinf(contract.action_slew).any():
        name = contract.action_names[int(np.isinf(contract.action_slew).argmax())]
        raise ValueError(
            f"safety.fallback is ramp, but action {name!r} has no slew that says how steep: "
            f"declare slew or safety.ramp_s"
        )
    if contract.choices is not None:
        _check_between(contract)
    if rules.enable is not None:
        alias = rules.enable.topic
        if alias not in contract.topics:
            raise ValueError(
                f"safety.enable names topic {alias!r}, declared are {', '.join(contract.topics)}"
            )
        if contract.topics[alias].max_age_s is None:
            raise ValueError(
                f"topic {alias!r} is the enable switch, so it needs max_age_s: how long may it be "
                f"silent before it counts as released?"
            )
    _check_measured(contract)
    read = contract.inputs(signals=False)
    for alias, topic in contract.topics.items():
        if topic.frozen_s is not None and alias not in read:
            raise ValueError(
                f"topic {alias!r} has frozen_s, but no observation reads it: leave it out"
            )


def _check_zero(contract: Contract) -> None:
    outside = (contract.action_low > 0) | (contract.action_high < 0)
    choices = contract.choices
    if outside.any() or (choices is not None and 0.0 not in choices):
        name = contract.action_names[int(outside.argmax())]
        raise ValueError(f"safety.fallback is zero, which action {name!r} may not have: use safe")


def _check_between(contract: Contract) -> None:
    """Choices have nothing between them: what would go through there is refused."""
    rules = contract.safety
    wrong = {
        "safety.fallback: ramp": rules.fallback == "ramp",
        "safety.blend_s": rules.blend_s > 0,
        "safety.support.speed": rules.support.action == "slow" and rules.support.speed > 0,
    }
    for key, is_given in wrong.items():
        if is_given:
            raise ValueError(
                f"{key} needs values between the choices of action "
                f"{contract.actions[0].name!r}, and there are none: leave it out"
            )


def _check_measured(contract: Contract) -> None:
    seen = {field.name for field in contract.observations}
    for action in contract.actions:
        field = action.measured_by
        if field is None:
            continue
        if action.choices is not None:
            raise ValueError(f"action {action.name!r}: measured_by does not go with choices")
        if field not in seen:
            raise ValueError(
                f"action {action.name!r} is measured by {field!r}, which is no observation: "
                f"there are {', '.join(sorted(seen))}"
            )
        wanted, given = len(contract.components(action.name)), len(contract.components(field))
        if wanted != given:
            raise ValueError(
                f"action {action.name!r} has {wanted} components, but {field!r}, which is to "
                f"measure it, has {given}"
            )
