"""The keys of a contract, each declared once with its type, bounds and meaning.

`contract.py` puts them together; `iql-ros schema` prints them as JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic import Field as Key
from typing_extensions import Self

from iql_ros.contracts.choices import check_apart
from iql_ros.contracts.paths import component_labels
from iql_ros.errors import ContractError
from iql_ros.features import FEATURES

Scalar = float | int | bool | str

_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
Limits = Annotated[
    list[tuple[float, float]],
    BeforeValidator(lambda v: [v] if isinstance(v, list) and not _is_nested(v) else v),
    WithJsonSchema({"anyOf": [_PAIR, {"type": "array", "items": _PAIR}]}),
]
"""One [low, high] for all components, or one for each."""
Values = Annotated[
    list[float],
    BeforeValidator(lambda v: v if isinstance(v, list) else [v]),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}),
]
"""One number for all components, or one for each."""


def _is_nested(value: list[Any]) -> bool:
    return any(isinstance(item, list) for item in value)


def _not_reserved(name: str) -> str:
    if name.startswith("next_"):
        raise ValueError("names must not begin with next_, which stands for the value after a step")
    return name


Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$"), AfterValidator(_not_reserved)
]


class Strict(BaseModel):
    """Unknown keys and infinities are refused; nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tick(Strict):
    """When a step begins: at a fixed rate, or at every n-th message of a topic."""

    rate_hz: float | None = Key(None, gt=0, le=10_000, description="steps per second")
    trigger: Name | None = Key(None, description="topic alias whose messages start a step")
    every: int = Key(1, ge=1, description="with trigger: use every n-th message")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.rate_hz is None) == (self.trigger is None):
            raise ValueError("give either rate_hz or trigger, not both and not neither")
        if self.rate_hz is not None and self.every != 1:
            raise ValueError("'every' belongs to trigger; with rate_hz lower the rate instead")
        return self


class Qos(Strict):
    """Quality of service of one topic; unset keys follow the role (see `Topic`)."""

    reliability: Literal["reliable", "best_effort"] | None = None
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: int = Key(10, ge=1, le=10_000)


class Topic(Strict):
    """One ROS topic.

    Subscriptions default to best effort (compatible with every publisher), publishers to
    reliable (compatible with every subscriber).
    """

    topic: str = Key(
        pattern=r"^/?[A-Za-z_][A-Za-z0-9_/]*$",
        description="ROS topic name; without a leading slash it follows the node's namespace",
    )
    type: str = Key(description="message type, package/msg/Name")
    max_age_s: float | None = Key(
        None, gt=0, description="an observation older than this is stale; needed if one uses it"
    )
    clock: Literal["receive", "header"] = Key(
        "receive", description="time of a message: when it arrived, or its header's stamp"
    )
    on_nonfinite: Literal["break", "hold"] = Key(
        "break", description="a NaN or infinity ends the segment, or the message is skipped"
    )
    frozen_s: float | None = Key(
        None, gt=0, description="values that stay equal for longer are a frozen sensor's"
    )
    command_timeout_s: float | None = Key(
        None, gt=0, description="a command older than this counts as silence"
    )
    on_silence: Literal["hold", "zero", "break"] = Key(
        "hold", description="what the action is when the command topic is silent"
    )
    constants: dict[str, Scalar | list[Scalar]] = Key(
        default_factory=dict, description="values of other fields in published messages"
    )
    qos: Qos = Qos()

    @property
    def absolute(self) -> str:
        """Its name in a log, and on the robot in the root namespace."""
        return self.topic if self.topic.startswith("/") else f"/{self.topic}"

    @model_validator(mode="before")
    @classmethod
    def _full_type_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("type"), str):
            parts = data["type"].split("/")
            if len(parts) == 2:
                return {**data, "type": f"{parts[0]}/msg/{parts[1]}"}
            if len(parts) != 3 or parts[1] != "msg" or not all(parts):
                raise ValueError(f"type {data['type']!r} must read package/msg/Name")
        return data


class Field(Strict):
    """One named value, of one or more components, that is read or computed at each step.

    Exactly one kind: from a message (`topic`, `path`), computed from other fields
    (`derive`, `of`), earlier values of a field (`history_of`, `steps`), or the previous
    action (`previous_action`).
    """

    name: Name
    topic: Name | None = Key(None, description="alias of the topic")
    path: str | None = Key(None, description="where in the message, e.g. pose.position.{x,y}")
    derive: str | None = Key(None, description=f"one of {', '.join(sorted(FEATURES))}")
    of: list[Name] = Key(default_factory=list, description="the fields it is computed from")
    history_of: Name | None = Key(None, description="a field whose earlier values these are")
    steps: int = Key(1, ge=1, le=1000, description="with history_of: how many earlier steps")
    previous_action: bool = Key(False, description="the action of the step before")
    unit: str = ""
    limits: Limits | None = Key(None, description="[low, high], or one pair a component")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = {
            "topic and path": self.topic is not None or self.path is not None,
            "derive and of": self.derive is not None or bool(self.of),
            "history_of": self.history_of is not None,
            "previous_action": self.previous_action,
        }
        given = [kind for kind, is_given in kinds.items() if is_given]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(kinds)}; "
                f"given: {', '.join(given) if given else 'none'}"
            )
        if (self.topic is None) != (self.path is None):
            raise ValueError("a message field needs both topic and path")
        if self.derive is not None and self.derive not in FEATURES:
            raise ValueError(f"derive {self.derive!r} is not one of {', '.join(sorted(FEATURES))}")
        if self.steps != 1 and self.history_of is None:
            raise ValueError("'steps' belongs to history_of")
        _check_path(self.path)
        _check_limits(self.limits)
        return self


class Action(Strict):
    """One commanded value, of one or more components: any within limits, or one of `choices`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["limits"]}, {"required": ["choices"]}]}
    )

    name: Name
    topic: Name = Key(description="alias of the topic it is published on")
    path: str
    unit: str = ""
    limits: Limits | None = Key(None, description="[low, high], or one pair a component")
    choices: list[float] | None = Key(
        None, min_length=2, description="the only values that may be commanded; no limits then"
    )
    slew: Values | None = Key(None, description="largest change, units per second")
    safe: Values = Key(description="what is published when the policy must not act")
    measured_by: Name | None = Key(
        None, description="the observation that measures it, as of a position; a blend begins there"
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        _check_path(self.path)
        _check_limits(self.limits)
        if any(slew <= 0 for slew in self.slew or []):
            raise ValueError(f"slew {self.slew} must be greater than 0 (leave it out for no limit)")
        if (self.limits is None) == (self.choices is None):
            raise ValueError("give either limits or choices, not both and not neither")
        if self.choices is not None:
            if self.slew is not None:
                raise ValueError("slew does not go with choices: a value between is none of them")
            if len(self.safe) != 1 or self.safe[0] not in self.choices:
                raise ValueError(f"safe = {self.safe} must be one of the choices {self.choices}")
            check_apart(self.choices)
        return self


class Reward(Strict):
    """The reward of a step: an expression, a recorded field, or your own function."""

    expression: str | None = Key(None, description="over component names, next_ for after")
    field: Name | None = Key(None, description="a one-component field, taken after the step")
    function: str | None = Key(
        None, pattern=r"^[\w.]+:\w+$", description="module:function of a dict of (N,) arrays"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.expression, self.field, self.function)) != 1:
            raise ValueError("give exactly one of expression, field, function")
        return self


class Episode(Strict):
    """Where an episode ends. Gaps, resets and the end of a log are always timeouts."""

    terminal: str | None = Key(None, description="expression; true ends it for good")
    reset: Name | None = Key(None, description="a field; when its value changes a new one begins")
    max_steps: int | None = Key(None, ge=1, description="longer ones are cut, as timeouts")
    jump: dict[Name, Annotated[float, Key(gt=0)]] = Key(
        {}, description="largest change of a field's components in one step; more is a reset"
    )


def _check_path(path: str | None) -> None:
    if path is not None:
        try:
            component_labels(path)
        except ContractError as error:
            raise ValueError(str(error)) from None


def _check_limits(limits: Limits | None) -> None:
    for low, high in limits or []:
        if not low < high:
            raise ValueError(f"limits [{low}, {high}]: the first must be below the second")
