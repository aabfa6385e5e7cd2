"""What a contract names outside itself: message types, paths in them, names in its rules."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.control.outputs import Output
from iql_ros.errors import ContractError, IqlRosError
from iql_ros.verbs.terminal import NotInstalledError, room
from iql_ros.wire import STAMP, Reader, make_types


def resolve(contract: Contract, source: str) -> list[str]:
    """Looks up all that the contract names, without a log and without a robot.

    Args:
        contract: to check.
        source: where it was read from, for the error.

    Returns:
        What could not be checked here, and why; a sentence each.

    Raises:
        ContractError: a line for each type, path or rule that is wrong.
        IqlRosError: something else stands in the place of the package that reads rules.
    """
    types = make_types(contract.definitions)
    unknown = {a for a, topic in contract.topics.items() if topic.type not in types.fielddefs}
    faults = [*_types(contract, types, unknown), *_paths(contract, types, unknown)]
    remarks = [
        f"not checked: topic {alias!r}, whose type {contract.topics[alias].type!r} is known only "
        f"to a log or a ROS installation; give its .msg files in message_folders"
        for alias in sorted(unknown)
    ]
    try:
        rules = room("training.conversion.rewards")
    except NotInstalledError as error:
        remarks.append(f"not checked: reward and terminal rule, as training is missing: {error}")
    else:
        faults += rules.rule_faults(contract)
    if faults:
        raise ContractError("\n".join(f"{source}: {fault}" for fault in faults))
    if contract.reward.function is not None:
        remarks.append(f"not checked: reward.function = {contract.reward.function!r}, your code")
    return remarks


def _types(contract: Contract, types: Typestore, unknown: set[str]) -> Iterator[str]:
    """Types that a known package does not have."""
    for alias in sorted(unknown):
        wanted = contract.topics[alias].type
        package = wanted.split("/")[0]
        there = [name for name in types.fielddefs if name.split("/")[0] == package]
        if there:
            near = get_close_matches(wanted, there, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            names = ", ".join(sorted(name.split("/")[-1] for name in there))
            yield (
                f"topics.{alias}.type = {wanted!r} is no message type: {meant}{package} has {names}"
            )


def _paths(contract: Contract, types: Typestore, unknown: set[str]) -> Iterator[str]:
    wanted = [
        (f"{part}.{field.name}", field.topic, [field.path])
        for part in ("observations", "signals")
        for field in getattr(contract, part)
        if field.topic is not None and field.path is not None
    ]
    wanted += [(f"actions.{a.name}", a.topic, [a.path]) for a in contract.actions]
    if contract.safety.enable is not None:
        enable = contract.safety.enable
        wanted.append(("safety.enable", enable.topic, [enable.path]))
    wanted += [
        (f"topics.{alias}.clock = 'header'", alias, STAMP)
        for alias, topic in contract.topics.items()
        if topic.clock == "header"
    ]
    broken = set(unknown)
    for key, alias, paths in wanted:
        if alias in unknown:
            continue
        try:
            Reader(types, contract.topics[alias].type, paths)
        except IqlRosError as error:
            broken.add(alias)
            yield f"{key}: {error}"
    for alias in contract.outputs:
        if alias not in broken:
            try:
                Output(contract, types, alias)
            except IqlRosError as error:
                yield f"topics.{alias}: {error}"
