"""The parameters of the controller node, each declared once: default, meaning, range.

A wrong value is refused with the reason, whether it comes from a file, at start, or at run time;
so is a name that nothing reads, since a mistyped `speed` would leave the robot at full speed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.parameter import Parameter

from iql_ros.errors import IqlRosError

SIM_TIME = "use_sim_time"
"""rclpy declares it for every node; here it is read at configure."""
QOS_OVERRIDES = "qos_overrides."
"""ROS's own too, though a node declares them only with the topic, if at all."""


def _setting(default: Any, description: str, **rule: Any) -> Any:
    """Declares one parameter; `rule` may hold range, choices, and live: may change while set up."""
    return field(default=default, metadata={"description": description, **rule})


@dataclass(frozen=True)
class Settings:
    """The values that the node was configured with."""

    bundle: str = _setting(
        "", "Folder of the policy bundle. Changed at run time, ~/reload takes it.", live=True
    )
    contract: str = _setting(
        "", "Contract YAML, or a shipped robot's name: a bundle made by another is refused."
    )
    mode: str = _setting(
        "shadow",  # moving the robot is for the user to say
        "shadow publishes to TOPIC/shadow and compares with TOPIC; active publishes to TOPIC.",
        choices=("shadow", "active"),
    )
    backend: str = _setting("auto", "What runs the policy; auto measures here and chooses.")
    public_key: str = _setting("", "A PEM file: only bundles that its holder has signed may run.")
    allow_ungated: bool = _setting(
        False,
        "Move the robot although the bundle has not passed its simulation gate; mode active "
        "outside simulation refuses that otherwise.",
    )
    speed: float = _setting(
        1.0, "Share of the way from rest to the policy's command.", range=(0.0, 1.0), live=True
    )
    watchdog_s: float = _setting(
        1.0,
        "A tick that takes longer gives the safe command and latches the emergency stop.",
        range=(0.05, 60.0),
    )
    listen_s: float = _setting(
        1.0,
        "So long after all inputs were heard the node listens for a latched emergency stop "
        "before it acts.",
        range=(0.0, 60.0),
    )
    black_box: str = _setting(
        str(Path(os.environ.get("ROS_HOME", "~/.ros")) / "iql_ros"),
        "Folder for recordings of faults, emergency stops and shutdowns; empty: keep none.",
    )
    black_box_s: float = _setting(30.0, "Seconds that a recording goes back.", range=(1.0, 600.0))
    record: str = _setting(
        "", "Folder for bags of whole runs, in parts of a minute; empty: record none."
    )
    executor: str = _setting(
        "single", "rclpy's executor; events is faster.", choices=("single", "events")
    )
    realtime_priority: int = _setting(
        0,
        "SCHED_FIFO priority of all threads, one more for ticks; 0 leaves the scheduler alone.",
        range=(0, 99),
    )
    cpus: str = _setting("", "CPUs that the process may run on, such as 2,3; empty: any.")
    lock_memory: bool = _setting(False, "Keep all memory from being paged out (mlockall).")

    def __post_init__(self) -> None:
        """Raises IqlRosError, naming the parameter, its value and its rule."""
        for setting in fields(self):
            reason = refusal(setting.name, getattr(self, setting.name))
            if reason:
                raise IqlRosError(reason)


_BY_NAME: Mapping[str, Field[Any]] = {setting.name: setting for setting in fields(Settings)}


def suffix_of(settings: Settings) -> str:
    """What the names of command topics get: a shadow does not command."""
    return "" if settings.mode == "active" else "/shadow"


def declare(node: Any) -> None:
    """Declares all parameters on `node`. Raises IqlRosError if it was given any other."""
    for name, setting in _BY_NAME.items():
        node.declare_parameter(name, setting.default, _descriptor(setting))
    refuse_unknown(node, [*_BY_NAME])


def refuse_unknown(node: Any, known: Sequence[str]) -> None:
    """Raises IqlRosError if `node` was given a parameter that it has not declared.

    Args:
        known: names of those that it has, for the error.
    """
    with node.handle:  # as rclpy itself asks for them; it keeps what nobody declares to itself
        given = node.handle.get_parameters(Parameter)
    unknown = [name for name in given if not node.has_parameter(name)]
    unknown = [name for name in unknown if not name.startswith(QOS_OVERRIDES)]
    if unknown:
        raise IqlRosError(_unknown(unknown, known))


def _unknown(names: Sequence[str], known: Sequence[str]) -> str:
    """What to say of parameters that the node does not have."""
    lines = []
    for name in names:
        near = get_close_matches(name, known, 1, cutoff=0.5)  # 0.6 misses policy_speed
        meant = f": did you mean {near[0]!r}?" if near else ""
        lines.append(f"parameter {name!r} is none of this node's{meant}")
    lines.append(f"it has {', '.join(known)} (docs/operation.md)")
    lines.append("what another node is to get must not stand under /** in a parameter file")
    return "\n".join(lines)


def read(node: Any) -> Settings:
    """The present values. Raises IqlRosError if one is wrong."""
    return Settings(**{name: node.get_parameter(name).value for name in _BY_NAME})


def check_change(parameters: Any, *, is_configured: bool) -> SetParametersResult:
    """Whether parameters may change now; the result names the first reason against it."""
    for parameter in parameters:
        setting = _BY_NAME.get(parameter.name)
        if setting is None and parameter.name != SIM_TIME:
            continue
        reason = "" if setting is None else refusal(parameter.name, parameter.value)
        is_live = setting is not None and setting.metadata.get("live", False)
        if not reason and is_configured and not is_live:
            reason = f"parameter '{parameter.name}' is read at configure: clean up first"
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def refusal(name: str, value: Any) -> str:
    """Why parameter `name` cannot have `value`; "" if it can."""
    rule = _BY_NAME[name].metadata
    if "choices" in rule and value not in rule["choices"]:
        return f"parameter '{name}' is {value!r}: it must be one of {', '.join(rule['choices'])}"
    if "range" in rule:
        low, high = rule["range"]
        if not low <= value <= high:  # so that NaN, which ROS's own check lets pass, is refused
            return f"parameter '{name}' is {value}: it must be {low} to {high}"
    if name == "cpus":
        try:
            parse_cpus(value)
        except ValueError:
            return f"parameter 'cpus' is {value!r}: give numbers such as 2,3"
    return ""


def parse_cpus(text: str) -> set[int]:
    """The numbers in a list such as "2,3". Raises ValueError."""
    return {int(number) for number in text.split(",") if number.strip()}


def _descriptor(setting: Field[Any]) -> ParameterDescriptor:
    rule = setting.metadata
    descriptor = ParameterDescriptor(description=rule["description"])
    if "choices" in rule:
        descriptor.additional_constraints = f"one of {', '.join(rule['choices'])}"
    if "range" in rule:
        low, high = rule["range"]
        if isinstance(setting.default, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
