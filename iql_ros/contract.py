"""The contract: what one step of a robot is.

One YAML file per robot fixes the tick, the topics, the ordered observation and action
fields, the reward and the end of an episode. Convert, train, export, the simulator and
the node all read sizes, names, bounds and topics from it, so none of them is typed twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Key
from pydantic import ValidationError, model_validator
from typing_extensions import Self

from iql_ros.contracts.contract_yaml import explain, find_yaml, load_model
from iql_ros.contracts.definitions import read_definitions
from iql_ros.contracts.paths import component_labels
from iql_ros.contracts.safety import Safety, check_safety
from iql_ros.contracts.schema import Action, Episode, Field, Name, Reward, Strict, Tick, Topic
from iql_ros.errors import ContractError
from iql_ros.features import FEATURES

ROBOTS = Path(__file__).parent / "robots"

Array = NDArray[np.float64]


class Contract(Strict):
    """What a step is on one robot. Load one with `load_contract`."""

    format: Literal[1]
    robot: Name
    description: str = ""
    tick: Tick
    message_folders: list[str] = Key(
        default_factory=list, description="folders of .msg files, relative to this file"
    )
    definitions: dict[str, str] = Key(
        default_factory=dict, description="message definitions by type (filled from the folders)"
    )
    topics: dict[Name, Topic]
    observations: list[Field] = Key(min_length=1, description="what the policy sees, in order")
    signals: list[Field] = Key(default_factory=list, description="recorded, unseen by the policy")
    actions: list[Action] = Key(min_length=1)
    reward: Reward
    episode: Episode = Episode()
    safety: Safety = Safety()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_references(self)
        seen: dict[str, str] = {}
        for owner, names in self._all_components():
            for name in names:
                if name in seen:
                    raise ValueError(
                        f"component name {name!r} of {owner!r} is already one of {seen[name]!r}: "
                        f"rename one of the two fields"
                    )
                seen[name] = owner
        items: list[Field | Action] = [*self.fields.values(), *self.actions]
        for item in items:
            self._bounds(item)
        if self.reward.field is not None and len(self.components(self.reward.field)) != 1:
            raise ValueError(f"reward.field {self.reward.field!r} must have one component")
        for action in self.actions:
            outside = (action_safe := self._spread(action, "safe")) < self._bounds(action)[0]
            outside |= action_safe > self._bounds(action)[1]
            if outside.any():
                raise ValueError(
                    f"action {action.name!r}: safe = {action.safe} lies outside "
                    f"limits = {action.limits}"
                )
            self._spread(action, "slew")
        _check_choices(self)
        check_safety(self)
        return self

    # -- fields and their components -------------------------------------------------

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Observations and signals by name, observations first."""
        return {field.name: field for field in (*self.observations, *self.signals)}

    def components(self, name: str) -> tuple[str, ...]:
        """Component names of the field or action `name`, in order."""
        labels = self._labels(name)
        return tuple(f"{name}_{label}" if label else name for label in labels)

    def _labels(self, name: str) -> tuple[str, ...]:
        action = next((action for action in self.actions if action.name == name), None)
        if action is not None:
            return component_labels(action.path)
        field = self.fields[name]
        if field.path is not None:
            return component_labels(field.path)
        if field.derive is not None:
            return FEATURES[field.derive].labels([self._labels(operand) for operand in field.of])
        if field.history_of is not None:
            return tuple(
                f"{lag}_{label}" if label else str(lag)
                for lag in range(1, field.steps + 1)
                for label in self._labels(field.history_of)
            )
        return tuple(label for action in self.actions for label in self.components(action.name))

    def _all_components(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for name in (*self.fields, *(action.name for action in self.actions)):
            yield name, self.components(name)

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """Component names of the observation vector, in order."""
        return tuple(c for field in self.observations for c in self.components(field.name))

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """Component names of the action vector, in order."""
        return tuple(c for action in self.actions for c in self.components(action.name))

    @property
    def observation_size(self) -> int:
        """Number of observation components, O."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """Number of action components, A."""
        return len(self.action_names)

    def index(self, name: str) -> int | slice:
        """Position of an observation or action component, or the slice of a whole field."""
        for names, items in (
            (self.observation_names, self.observations),
            (self.action_names, self.actions),
        ):
            if name in names:
                return names.index(name)
            if any(item.name == name for item in items):
                own = self.components(name)
                start = names.index(own[0])
                return slice(start, start + len(own))
        raise ContractError(
            f"contract {self.robot!r} has no observation or action {name!r}: "
            f"there are {', '.join((*self.observation_names, *self.action_names))}"
        )

    # -- bounds, each (A,) or (O,) float64 -------------------------------------------

    @cached_property
    def action_low(self) -> Array:
        """Lower action limits, shape (A,)."""
        return _frozen([self._bounds(action)[0] for action in self.actions])

    @cached_property
    def action_high(self) -> Array:
        """Upper action limits, shape (A,)."""
        return _frozen([self._bounds(action)[1] for action in self.actions])

    @cached_property
    def action_slew(self) -> Array:
        """Largest change of each action per second, shape (A,); inf where undeclared."""
        return _frozen([self._spread(action, "slew") for action in self.actions])

    @cached_property
    def action_safe(self) -> Array:
        """The safe action, shape (A,)."""
        return _frozen([self._spread(action, "safe") for action in self.actions])

    @cached_property
    def observation_low(self) -> Array:
        """Lower observation limits, shape (O,); -inf where undeclared."""
        return _frozen([self._bounds(field)[0] for field in self.observations])

    @cached_property
    def observation_high(self) -> Array:
        """Upper observation limits, shape (O,); inf where undeclared."""
        return _frozen([self._bounds(field)[1] for field in self.observations])

    @cached_property
    def choices(self) -> Array | None:
        """The values that the one action may have, shape (K,); None if any within limits."""
        given = self.actions[0].choices
        return None if given is None else _frozen([np.array(given, dtype=np.float64)])

    def _bounds(self, item: Field | Action) -> tuple[Array, Array]:
        size = len(self.components(item.name))
        if isinstance(item, Action) and item.choices is not None:
            return np.full(size, min(item.choices)), np.full(size, max(item.choices))
        if item.limits is None:
            return np.full(size, -np.inf), np.full(size, np.inf)
        pairs = item.limits * size if len(item.limits) == 1 else item.limits
        if len(pairs) != size:
            raise ValueError(f"{item.name!r} has {size} components but {len(pairs)} limits")
        low, high = np.array(pairs, dtype=np.float64).T
        return low, high

    def _spread(self, action: Action, key: Literal["slew", "safe"]) -> Array:
        size = len(self.components(action.name))
        given = getattr(action, key)
        if given is None:
            return np.full(size, np.inf)
        values = given * size if len(given) == 1 else given
        if len(values) != size:
            raise ValueError(
                f"action {action.name!r} has {size} components but {len(values)} values of {key}"
            )
        return np.array(values, dtype=np.float64)

    # -- which topics play which part ------------------------------------------------

    def inputs(self, *, signals: bool) -> tuple[str, ...]:
        """Aliases of the topics whose messages are needed.

        Args:
            signals: also those that only signals (rewards, episode rules) read, as convert
                needs them; without, only what the policy needs.
        """
        wanted = [field.name for field in self.observations]
        if signals:
            wanted += [field.name for field in self.signals]
        aliases = {self.fields[name].topic for name in self.closure(wanted)} - {None}
        if self.tick.trigger is not None:
            aliases.add(self.tick.trigger)
        return tuple(alias for alias in self.topics if alias in aliases)

    @cached_property
    def subscriptions(self) -> tuple[str, ...]:
        """Aliases of the topics that a controller listens to: inputs and the enable switch."""
        enable = self.safety.enable
        wanted = {*self.inputs(signals=False), *([enable.topic] if enable is not None else [])}
        return tuple(alias for alias in self.topics if alias in wanted)

    @cached_property
    def unseen(self) -> tuple[str, ...]:
        """Aliases, one a topic, that convert needs and that a controller neither hears nor says."""
        known = {self.topics[alias].absolute for alias in (*self.subscriptions, *self.outputs)}
        others = {self.topics[alias].absolute: alias for alias in self.inputs(signals=True)}
        return tuple(alias for name, alias in others.items() if name not in known)

    @cached_property
    def measured(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which action components are measured, (M,), and by which observation components, (M,)."""
        pairs = [
            (self.action_names.index(ours), self.observation_names.index(theirs))
            for action in self.actions
            if action.measured_by is not None
            for ours, theirs in zip(
                self.components(action.name), self.components(action.measured_by), strict=True
            )
        ]
        columns = np.array(pairs, np.int64).reshape(-1, 2)
        return columns[:, 0], columns[:, 1]

    def closure(self, names: Sequence[str]) -> tuple[str, ...]:
        """The fields `names` and all they are computed from, each after its operands."""
        ordered: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in ordered:
                field = self.fields[name]
                for operand in (*field.of, *([field.history_of] if field.history_of else [])):
                    visit(operand)
                ordered[name] = None

        for name in names:
            visit(name)
        return tuple(ordered)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Aliases of the topics that actions are published on."""
        aliases = {action.topic for action in self.actions}
        return tuple(alias for alias in self.topics if alias in aliases)

    # -- identity --------------------------------------------------------------------

    def canonical(self) -> dict[str, Any]:
        """The typed content that decides behaviour, as plain JSON types.

        Keys at their default are left out, so that a later key does not change the digest of
        a contract that does not use it.
        """
        return self.model_dump(
            mode="json", exclude={"description", "message_folders"}, exclude_defaults=True
        )

    def canonical_json(self) -> str:
        """Canonical content as one line of JSON with sorted keys."""
        return json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """The contract that `canonical_json` wrote. Raises ContractError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(explain(error, "embedded contract", None)) from None


def load_contract(source: str | Path) -> Contract:
    """Reads and checks a contract.

    Args:
        source: a YAML file, or the name of a shipped robot, such as "arm6".

    Raises:
        ContractError: naming file, line, field, value, rule and fix.
    """
    path = find_yaml(source, ROBOTS, "contract")
    contract = load_model(Contract, path)
    folders = [path.parent / folder for folder in contract.message_folders]
    found = read_definitions(folders, [topic.type for topic in contract.topics.values()])
    return contract.model_copy(update={"definitions": {**contract.definitions, **found}})


def first_difference(ours: Contract, theirs: Contract) -> str | None:
    """The first field in which two contracts differ, with both values, or None."""
    return _difference(ours.canonical(), theirs.canonical(), "")


def require_same(ours: Contract, theirs: Contract | None, what: str) -> None:
    """Raises ContractError, naming the first difference, unless the two contracts agree.

    Args:
        ours: the contract that was given.
        theirs: the one that came with a dataset or bundle; None if it has none.
        what: that dataset or bundle, for the error.
    """
    if theirs is None:
        raise ContractError(f"{what} carries no contract, so it cannot be compared with the given")
    found = first_difference(ours, theirs)
    if found is not None:
        raise ContractError(
            f"{what} was made by another contract of robot {theirs.robot!r}; the first "
            f"difference (given, {what}) is {found}"
        )


def _difference(ours: Any, theirs: Any, where: str) -> str | None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            inner = f"{where}.{key}" if where else str(key)
            if key not in ours or key not in theirs:
                return f"{inner}: {ours.get(key, 'absent')} against {theirs.get(key, 'absent')}"
            found = _difference(ours[key], theirs[key], inner)
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list):
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            found = _difference(mine, other, f"{where}[{_item_name(mine, i)}]")
            if found:
                return found
        if len(ours) != len(theirs):
            return f"{where}: {len(ours)} entries against {len(theirs)}"
        return None
    return None if ours == theirs else f"{where}: {ours} against {theirs}"


def _item_name(item: Any, i: int) -> Any:
    return item["name"] if isinstance(item, dict) and "name" in item else i


def _check_references(contract: Contract) -> None:
    names = [field.name for field in (*contract.observations, *contract.signals)]
    names += [action.name for action in contract.actions]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the name {name!r} is used {names.count(name)} times: rename")
    aliases = [(f"field {f.name!r}", f.topic) for f in contract.fields.values() if f.topic]
    aliases += [(f"action {action.name!r}", action.topic) for action in contract.actions]
    aliases += [("tick.trigger", contract.tick.trigger)] if contract.tick.trigger else []
    for owner, alias in aliases:
        if alias not in contract.topics:
            raise ValueError(
                f"{owner} names topic {alias!r}, declared are {', '.join(contract.topics)}"
            )
    for field in contract.fields.values():
        _check_operands(contract, field, ())
    for field in contract.fields.values():
        if field.derive is not None:
            widths = [len(contract.components(operand)) for operand in field.of]
            try:
                FEATURES[field.derive].check(field.name, widths)
            except ContractError as error:
                raise ValueError(str(error)) from None
    for alias in contract.inputs(signals=False):
        if contract.topics[alias].max_age_s is None:
            raise ValueError(
                f"topic {alias!r} feeds an observation, so it needs max_age_s: "
                f"how old may its newest message be before the robot must not act on it?"
            )
    rules = {"reward.field": contract.reward.field, "episode.reset": contract.episode.reset}
    rules |= {f"episode.jump.{name}": name for name in contract.episode.jump}
    for key, rule in rules.items():
        if rule is not None and rule not in contract.fields:
            raise ValueError(f"{key} names {rule!r}, which is no field: declare it in signals")


def _check_operands(contract: Contract, field: Field, above: tuple[str, ...]) -> None:
    if field.name in above:
        raise ValueError(f"field {field.name!r} is computed from itself: {' <- '.join(above)}")
    for operand in (*field.of, *([field.history_of] if field.history_of else [])):
        if operand not in contract.fields:
            raise ValueError(
                f"field {field.name!r} is computed from {operand!r}, which is no field: "
                f"there are {', '.join(contract.fields)}"
            )
        source = contract.fields[operand]
        if source.previous_action or source.history_of:
            raise ValueError(
                f"field {field.name!r} is computed from {operand!r}, itself a memory of earlier "
                f"steps: only message and derived fields can be operands"
            )
        _check_operands(contract, source, (*above, field.name))


def _check_choices(contract: Contract) -> None:
    for action in contract.actions:
        if action.choices is None:
            continue
        if contract.action_size != 1:
            raise ValueError(
                f"action {action.name!r} has choices, so it must be the contract's only action "
                f"component, there are {contract.action_size}: "
                f"{', '.join(contract.action_names)}; list the combinations on one topic instead"
            )
        silence = contract.topics[action.topic].on_silence
        if silence == "zero" and 0.0 not in action.choices:
            raise ValueError(
                f"action {action.name!r}: on_silence of topic {action.topic!r} is zero, which is "
                f"none of its choices {action.choices}: use hold or break"
            )


def _frozen(parts: Sequence[Array]) -> Array:
    joined = np.concatenate(parts)
    joined.setflags(write=False)
    return joined
