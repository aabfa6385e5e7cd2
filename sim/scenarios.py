"""Scenarios: what happens to a robot in simulation, and what must hold meanwhile.

A scenario changes the machine (physics, start, obstacle, push), what the sensors say (noise,
bias), the stream of messages (faults), or the way of commands to the actuators. It never touches
the controller. The library names the scenarios; a suite picks some for one world, and may
override any key. All ranges are drawn anew in each episode, from its own generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from iql_ros.contract import Contract
from iql_ros.contracts.contract_yaml import find_yaml, read_yaml, validated
from iql_ros.contracts.schema import Name, Strict
from iql_ros.errors import ContractError
from sim.world_file import WORLDS, Place, Range

SCENARIOS = Path(__file__).parent / "scenarios"
LIBRARY = SCENARIOS / "library.yaml"

Factor = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]],
    BeforeValidator(lambda value: [value, value] if isinstance(value, (int, float)) else value),
]
"""What something is multiplied with: one number, or [low, high]."""


class Physics(Strict):
    """The machine is not quite as it was modelled."""

    mass: Factor = Field((1.0, 1.0), description="of each body, its inertia with it")
    friction: Factor = Field((1.0, 1.0), description="of all contacts, and of each joint")
    damping: Factor = Field((1.0, 1.0), description="of each joint")
    strength: Factor = Field((1.0, 1.0), description="of each motor: its gains and its limits")


class Obstacle(Strict):
    """A ball that stands in the way."""

    radius: float = Field(gt=0, description="m")
    place: Place = Field(description="x, y, z or azimuth, radius, height, each a range")


class Push(Strict):
    """Horizontal pushes from outside, each in a direction drawn by chance."""

    body: str = Field(description="which body of the model is pushed")
    force: Range = Field(description="N")
    duration_s: float = Field(0.1, gt=0)
    every_s: float = Field(1.0, gt=0, description="from the beginning of one to the next")


class Fault(Strict):
    """What goes wrong with the messages of a topic."""

    kind: Literal["dead", "frozen", "delayed", "nan", "swapped"]
    topic: str | None = Field(
        None, description="alias; default: one that the policy needs, drawn by chance"
    )
    at_s: Range = Field((0.3, 1.0), description="when it begins")
    for_s: float | None = Field(None, gt=0, description="for how long; default: to the end")
    delay_s: float = Field(0.0, ge=0, description="with delayed: how late messages arrive")

    @model_validator(mode="after")
    def _delay_of_its_kind(self) -> Self:
        if (self.kind == "delayed") != (self.delay_s > 0):
            raise ValueError(f"delay_s = {self.delay_s:g} belongs to kind: delayed, and only there")
        return self


class Must(Strict):
    """What must hold in all episodes of a scenario; a key that is absent asks for nothing."""

    success: float | None = Field(
        None, ge=0, le=1, description="the lower end of the 95 % interval of the success rate"
    )
    limit_violations: int | None = Field(
        0, ge=0, description="commands outside of the machine's limits that reach the actuators"
    )
    slew_violations: int | None = Field(
        0, ge=0, description="changes of the policy's commands that exceed the machine's slew"
    )
    stop_ticks: int | None = Field(
        None, ge=0, description="from the emergency stop until the actuators hold the safe action"
    )
    notice_ticks: int | None = Field(
        None, ge=0, description="from the beginning of the fault until the policy acts no more"
    )
    interventions: float | None = Field(
        None, ge=0, le=1, description="worst share of an episode's ticks that were not just ok"
    )
    deadline_s: float | None = Field(
        0.02,
        gt=0,
        description="processor time that 99 of 100 ticks stay below, on the machine of the gate",
    )


class Scenario(Strict):
    """One scenario."""

    description: str
    episodes: int = Field(40, ge=1)
    physics: Physics = Physics()
    start_width: float = Field(1.0, gt=0, description="scales the ranges of the world's start")
    obstacle: Obstacle | None = None
    push: Push | None = None
    noise: float = Field(1.0, ge=0, description="scales the noise of the sensors")
    bias: float = Field(
        0.0, ge=0, description="constant error of each measurement, in deviations of its noise"
    )
    jitter_s: float = Field(0.0, ge=0, description="every message arrives up to so much later")
    drop: float = Field(0.0, ge=0, lt=1, description="share of messages that never arrive")
    fault: Fault | None = None
    delay_ticks: tuple[int, int] = Field(
        (0, 0), description="commands reach the actuators so many ticks late, [least, most]"
    )
    latency_s: Range = Field((0.0, 0.0), description="... and so much later besides")
    stop_at_s: Range | None = Field(None, description="when the emergency stop is pressed")
    must: Must = Must()

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if all(asked is None for asked in self.must.model_dump().values()):
            raise ValueError("must asks for nothing, and would pass whatever happens: keep a bound")
        if self.must.stop_ticks is not None and self.stop_at_s is None:
            raise ValueError("must.stop_ticks needs stop_at_s: when is the stop pressed?")
        if self.must.notice_ticks is not None and self.fault is None:
            raise ValueError("must.notice_ticks needs a fault to be noticed")
        if not 0 <= self.delay_ticks[0] <= self.delay_ticks[1]:
            raise ValueError(f"delay_ticks {list(self.delay_ticks)} must be [least, most], from 0")
        return self


class Suite(Strict):
    """The scenarios that a policy must pass in one world."""

    format: Literal[1]
    suite: Name
    world: str | None = Field(
        None, description="a shipped world, or a world file relative to this one"
    )
    description: str = ""
    scenarios: dict[Name, Scenario] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides: every scenario with its numbers."""
        said = self.model_dump_json(exclude={"description", "world"})
        return hashlib.sha256(said.encode()).hexdigest()

    def only(self, name: str) -> Scenario:
        """The scenario `name`. Raises ContractError."""
        if name not in self.scenarios:
            raise ContractError(
                f"suite {self.suite!r} has no scenario {name!r}: there are "
                f"{', '.join(self.scenarios)}"
            )
        return self.scenarios[name]

    def narrowed(
        self,
        *,
        world: str | None = None,
        scenario: str | None = None,
        episodes: int | None = None,
        robot: str | None = None,
    ) -> Suite:
        """The same in another world, of one scenario only, or with other numbers of episodes.

        Args:
            world, scenario, episodes: in place of the suite's own.
            robot: that it is for, for the error.

        Raises:
            ContractError: there is no such scenario, or no world at all.
        """
        chosen = self.scenarios if scenario is None else {scenario: self.only(scenario)}
        if episodes is not None:
            chosen = {n: s.model_copy(update={"episodes": episodes}) for n, s in chosen.items()}
        world = world or self.world
        if world is None:
            raise ContractError(f"suite {self.suite!r} names no world{_remedy(robot)}")
        return self.model_copy(update={"scenarios": chosen, "world": world})


def _remedy(robot: str | None) -> str:
    """What to do about a suite that names no world."""
    shipped = sorted(path.stem for path in WORLDS.glob("*.yaml"))
    if robot in shipped:
        return f": give --world {robot}, the shipped world of this robot"
    none = "" if robot is None else f", and robot {robot!r} has no shipped one"
    return (
        f"{none} ({', '.join(shipped)} are shipped): describe the robot in a world file, then give "
        f"--world WORLD.yaml, or --suite SUITE.yaml of a suite that names it "
        f"(docs/bring-your-own-robot.md)"
    )


def default_suite(world: str) -> str:
    """The name of the shipped suite of a world, or of the one for any."""
    return world if (SCENARIOS / f"{world}.yaml").exists() else "any"


def load_suite(source: str | Path) -> Suite:
    """Reads and checks a suite; each entry is the library's scenario of that name, overridden.

    Args:
        source: a YAML file, or the name of a shipped suite, such as "arm6".

    Raises:
        ContractError: naming file, line, key, value, rule and fix.
    """
    path = find_yaml(source, SCENARIOS, "suite", hidden=LIBRARY)
    data, node = read_yaml(path)
    library = yaml.safe_load(LIBRARY.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not isinstance(data.get("scenarios"), dict):
        raise ContractError(f"{path} must be a mapping with 'format: 1' and 'scenarios:'")
    for name, changes in data["scenarios"].items():
        if name not in library and "description" not in (changes or {}):
            raise ContractError(
                f"{path}: scenarios.{name}: no such scenario in the library, which has "
                f"{', '.join(library)}; one of your own needs a description"
            )
    data["scenarios"] = {
        name: _overridden(library.get(name, {}), changes or {})
        for name, changes in data["scenarios"].items()
    }
    suite = validated(Suite, data, path, node)
    beside = path.parent / (suite.world or "")
    return suite.model_copy(update={"world": str(beside)}) if beside.is_file() else suite


def _overridden(base: Any, changes: Any) -> Any:
    """`base` with `changes` in it; mappings are merged key by key, all else is replaced."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    merged = {key: _overridden(base[key], changes[key]) for key in base.keys() & changes.keys()}
    return {**base, **changes, **merged}


def check_topics(suite: Suite, contract: Contract) -> None:
    """Raises ContractError where a fault is of a topic that the policy does not hear."""
    for name, scenario in suite.scenarios.items():
        fault = scenario.fault
        if fault is None or fault.topic is None:
            continue
        if fault.topic not in contract.subscriptions:
            raise ContractError(
                f"suite {suite.suite!r}, scenario {name!r}: fault.topic is {fault.topic!r}, the "
                f"policy hears {', '.join(contract.subscriptions)}"
            )
