"""The world file: what a simulated robot is, as data.

It stands beside an MJCF model and a contract. Where the names of the three agree, nothing else is
needed; docs/bring-your-own-robot.md walks through one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Key
from typing_extensions import Self

from iql_ros.contract import Contract, load_contract
from iql_ros.contracts.contract_yaml import find_yaml, load_model
from iql_ros.contracts.schema import Name, Strict
from iql_ros.errors import ContractError

WORLDS = Path(__file__).parent / "worlds"

Range = Annotated[
    tuple[float, float],
    BeforeValidator(lambda value: [value, value] if isinstance(value, (int, float)) else value),
]
"""One number, or [low, high] between which one is drawn uniformly."""

Place = dict[Literal["x", "y", "z", "yaw", "azimuth", "radius", "height"], Range]
"""Where a body is put: Cartesian, or azimuth (rad), radius and height about the origin."""


class Scan(Strict):
    """The beams of a LaserScan, evenly spread, from the site of the topic; angles in rad."""

    beams: int = Key(ge=1, le=4096)
    angle_min: float
    angle_max: float
    range_min: float = Key(0.0, ge=0)
    range_max: float = Key(gt=0, description="m; a beam that meets nothing reads this")


class TopicSource(Strict):
    """Where the messages of one topic come from."""

    every: int = Key(1, ge=1, description="a message at every n-th sensor period")
    frame: str = Key("", description="header.frame_id")
    source: str | None = Key(
        None, description="site, body or geom of the model, if it is not called like the topic"
    )
    joints: list[str] = Key([], description="of a JointState; default: those that fields name")
    scan: Scan | None = None
    noise: dict[str, float] = Key(
        {}, description="standard deviation by part of the message: position, velocity, ..."
    )
    noise_share: dict[str, float] = Key(
        {}, description="a further one by part, independent, as a share of what is measured"
    )


class Start(Strict):
    """Where an episode begins."""

    joints: dict[str, Range] = Key({}, description="position of a joint, rad or m")
    velocities: dict[str, Range] = Key({}, description="velocity of a joint")
    bodies: dict[str, Place] = Key({}, description="place of a mocap or free body")


class WorldFile(Strict):
    """The content of a world file. Load one with `load_world_file`."""

    format: Literal[1]
    world: Name
    description: str = ""
    model: Path = Key(description="MJCF, relative to this file")
    contract: str = Key(description="a robot's name, or a YAML file relative to this one")
    adapter: Path | None = Key(None, description="Python file where names do not match")
    behaviour: str | None = Key(
        None, description="scripted operators: module:Class, or file.py:Class beside this file"
    )
    sensor_hz: float = Key(gt=0, description="rate of the fastest sensor")
    topics: dict[Name, TopicSource] = Key({}, description="by alias; default: all defaults")
    names: dict[str, str] = Key({}, description="joint of a message -> joint of the model")
    actuators: dict[str, str] = Key(
        {}, description="actuator -> expression over action components; default: the same name"
    )
    start: Start = Start()
    success: str = Key(description="over contract components at a step's end; true ends it")
    failure: str | None = Key(None, description="likewise, for the worse")
    hold_s: float = Key(0.0, ge=0, description="success must hold for so long")
    time_limit_s: float = Key(gt=0)
    camera: str | None = Key(None, description="camera of the model for pictures")

    @model_validator(mode="after")
    def _whole_ns(self) -> Self:
        if abs(1e9 / self.sensor_hz - round(1e9 / self.sensor_hz)) > 1e-6:
            raise ValueError(f"sensor_hz {self.sensor_hz:g} has no period of whole nanoseconds")
        return self

    @property
    def period_ns(self) -> int:
        """Of the fastest sensor."""
        return round(1e9 / self.sensor_hz)


def load_world_file(source: str | Path) -> tuple[WorldFile, Contract]:
    """Reads and checks a world file and the contract that it names.

    Args:
        source: a YAML file, or the name of a shipped world, such as "arm6".

    Returns:
        The file with absolute paths, and the contract.

    Raises:
        ContractError: naming file, line, key, value, rule and fix.
    """
    path = find_yaml(source, WORLDS, "world")
    world = load_model(WorldFile, path)
    beside = path.parent / world.contract
    contract = load_contract(beside if beside.is_file() else world.contract)
    for alias in world.topics:
        if alias not in contract.topics:
            raise ContractError(
                f"{path}: topics.{alias} is no topic of contract {contract.robot!r}: there are "
                f"{', '.join(contract.topics)}"
            )
    absolute = {"model": (path.parent / world.model).resolve()}
    if world.adapter is not None:
        absolute["adapter"] = (path.parent / world.adapter).resolve()
    for key, file in absolute.items():
        if not file.is_file():
            raise ContractError(f"{path}: {key} = {file} is no file")
    return world.model_copy(update=absolute), contract
