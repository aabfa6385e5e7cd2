"""Where a topic's messages come from in the model: found by name and by message type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.paths import Named, component_labels, parse_path
from iql_ros.errors import ContractError
from sim.world_file import Scan, TopicSource, WorldFile

Array = NDArray[np.float64]
Read = Callable[[], ArrayLike]


@dataclass(frozen=True)
class Part:
    """Neighbouring values of a message: `path` names them, `read` gives as many numbers."""

    name: str
    path: str
    read: Read


@dataclass(frozen=True)
class Source:
    """What the messages of one topic hold, header apart."""

    parts: list[Part]
    constants: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A MuJoCo model, its state, and the file that speaks of it."""

    model: mujoco.MjModel
    data: mujoco.MjData
    file: WorldFile

    def joint(self, name: str, owner: str) -> tuple[int, int]:
        """Addresses in qpos and qvel of the joint that messages call `name`."""
        ours = self.file.names.get(name, name)
        number = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_JOINT, ours)
        if number < 0:
            raise self.missing(owner, "joint", ours, mujoco.mjtObj.mjOBJ_JOINT, self.model.njnt)
        if int(self.model.jnt_type[number]) not in _ONE_NUMBER:
            raise ContractError(f"{owner}: joint {ours!r} is no hinge or slide")
        return int(self.model.jnt_qposadr[number]), int(self.model.jnt_dofadr[number])

    def place(self, name: str, owner: str) -> tuple[mujoco.mjtObj, int]:
        """Kind and number of the site, body or geom `name`."""
        for kind in (mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_GEOM):
            number = mujoco.mj_name2id(self.model, kind, name)
            if number >= 0:
                return kind, number
        raise self.missing(
            owner, "site, body or geom", name, mujoco.mjtObj.mjOBJ_SITE, self.model.nsite
        )

    def missing(
        self, owner: str, what: str, name: str, kind: mujoco.mjtObj, count: int
    ) -> ContractError:
        """The error that says what the model has instead."""
        names = [mujoco.mj_id2name(self.model, kind, i) or "?" for i in range(count)]
        return ContractError(
            f"{owner}: the model has no {what} {name!r}, there are {', '.join(names) or 'none'}: "
            f"rename it, say `source` or `names` in the world file, or write an adapter"
        )


_ONE_NUMBER = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_POSES: dict[
    str, tuple[str, str | None, str | None]
] = {  # message type -> prefix of position, of orientation, of the twist
    "geometry_msgs/msg/PointStamped": ("point", None, None),
    "geometry_msgs/msg/Point": ("", None, None),
    "geometry_msgs/msg/PoseStamped": ("pose.position", "pose.orientation", None),
    "geometry_msgs/msg/Pose": ("position", "orientation", None),
    "geometry_msgs/msg/PoseWithCovarianceStamped": (
        *("pose.pose.position", "pose.pose.orientation"),
        None,
    ),
    "geometry_msgs/msg/TransformStamped": ("transform.translation", "transform.rotation", None),
    "nav_msgs/msg/Odometry": ("pose.pose.position", "pose.pose.orientation", "twist.twist"),
}


def find_source(
    contract: Contract, alias: str, world: Model, adapted: Mapping[str, Read], episode: Read
) -> Source:
    """The source of one input topic.

    Args:
        adapted: what the adapter gives, by path; all that there is, if it gives anything.
        episode: gives the number of the episode.

    Raises:
        ContractError: the model has nothing for it; says what it looked for.
    """
    topic, said = contract.topics[alias], world.file.topics.get(alias, TopicSource())
    owner = f"world {world.file.world!r}, topic {alias!r} ({topic.type})"
    constants: dict[str, object] = {"header.frame_id": said.frame} if said.frame else {}
    if adapted:
        return Source([Part(path, path, read) for path, read in adapted.items()], constants)
    name = said.source or alias
    if topic.type == "sensor_msgs/msg/JointState":
        names = said.joints or _named(contract, alias, world)
        return Source(_joints(world, names, owner), {**constants, "name": names})
    if topic.type in _POSES:
        return Source(_pose(world, *world.place(name, owner), _POSES[topic.type]), constants)
    if topic.type == "sensor_msgs/msg/Imu":
        return Source(_imu(world, name, owner), constants)
    if topic.type == "sensor_msgs/msg/LaserScan":
        if said.scan is None:
            raise ContractError(f"{owner}: say topics.{alias}.scan: beams, angles and ranges")
        fixed = said.scan.model_dump(exclude={"beams"}) | {"angle_increment": _increment(said.scan)}
        return Source(_scan(world, name, said.scan, owner), constants | fixed)
    return Source(_by_component(contract, alias, world, episode, owner), constants)


def _named(contract: Contract, alias: str, world: Model) -> list[str]:
    """Joints that fields name; where none does, all hinges and slides of the model."""
    paths = [f.path for f in contract.fields.values() if f.topic == alias and f.path is not None]
    steps = [step for p in paths for c in parse_path(p).components for step in c.steps]
    named = list(dict.fromkeys(step.name for step in steps if isinstance(step, Named)))
    if named:
        return named
    theirs = {ours: name for name, ours in world.file.names.items()}
    model = world.model
    joints = [model.joint(i) for i in range(model.njnt) if int(model.jnt_type[i]) in _ONE_NUMBER]
    return [theirs.get(joint.name, joint.name) for joint in joints]


def _joints(world: Model, names: list[str], owner: str) -> list[Part]:
    addresses = np.array([world.joint(name, owner) for name in names])
    data, (qpos, dof) = world.data, addresses.T
    span = f"[0:{len(names)}]"
    return [
        Part("position", f"position{span}", _taken(data.qpos, qpos)),
        Part("velocity", f"velocity{span}", _taken(data.qvel, dof)),
        Part("effort", f"effort{span}", _taken(data.qfrc_actuator, dof)),
    ]


def _taken(values: Array, places: NDArray[np.int64]) -> Read:
    """Those at `places`: neighbours as a view, which follows `values`."""
    first = int(places[0])
    if (places == first + np.arange(len(places))).all():
        view = values[first : first + len(places)]
        return lambda: view
    return lambda: values[places]


def _pose(
    world: Model,
    kind: mujoco.mjtObj,
    number: int,
    prefixes: tuple[str, str | None, str | None],
) -> list[Part]:
    data = world.data
    position, orientation, twist = prefixes
    xpos, xmat = {
        mujoco.mjtObj.mjOBJ_SITE: (data.site_xpos, data.site_xmat),
        mujoco.mjtObj.mjOBJ_BODY: (data.xpos, data.xmat),
        mujoco.mjtObj.mjOBJ_GEOM: (data.geom_xpos, data.geom_xmat),
    }[kind]
    dot = "." if position else ""
    place, turn = xpos[number], xmat[number]
    wxyzw = np.empty(5)  # MuJoCo writes w first, ROS last
    wxyz, xyzw = wxyzw[:4], wxyzw[1:]

    def orient() -> Array:
        mujoco.mju_mat2Quat(wxyz, turn)
        wxyzw[4] = wxyzw[0]
        return xyzw

    parts = [Part("position", f"{position}{dot}{{x,y,z}}", lambda: place)]
    if orientation is not None:
        parts.append(Part("orientation", f"{orientation}.{{x,y,z,w}}", orient))
    if twist is not None:  # in the frame of the child, as nav_msgs/Odometry has it
        moving = np.empty(6)

        def velocity(first: int) -> Read:
            def read() -> Array:
                mujoco.mj_objectVelocity(world.model, data, kind, number, moving, 1)
                return moving[first : first + 3]

            return read

        parts += [
            Part("linear", f"{twist}.linear.{{x,y,z}}", velocity(3)),
            Part("angular", f"{twist}.angular.{{x,y,z}}", velocity(0)),
        ]
    return parts


def _imu(world: Model, name: str, owner: str) -> list[Part]:
    """Gyro and accelerometer on the site, and its orientation."""
    kind, site = world.place(name, owner)
    data, model = world.data, world.model
    parts = _pose(world, kind, site, ("", "orientation", None))[1:]
    for part, sort in (
        ("angular_velocity", mujoco.mjtSensor.mjSENS_GYRO),
        ("linear_acceleration", mujoco.mjtSensor.mjSENS_ACCELEROMETER),
    ):
        fitting = np.flatnonzero((model.sensor_type == int(sort)) & (model.sensor_objid == site))
        if not len(fitting):
            raise ContractError(f"{owner}: the model has no {part} sensor on site {name!r}")
        first = int(model.sensor_adr[fitting[0]])
        places = first + np.arange(3)
        parts.append(Part(part, f"{part}.{{x,y,z}}", _taken(data.sensordata, places)))
    return parts


def _increment(scan: Scan) -> float:
    return (scan.angle_max - scan.angle_min) / max(1, scan.beams - 1)


def _scan(world: Model, name: str, scan: Scan, owner: str) -> list[Part]:
    """Rays from the site in its x-y plane; they pass through the body that carries it."""
    kind, site = world.place(name, owner)
    if kind != mujoco.mjtObj.mjOBJ_SITE:
        raise ContractError(f"{owner}: {name!r} must be a site, from which the beams start")
    model, data = world.model, world.data
    angles = scan.angle_min + _increment(scan) * np.arange(scan.beams)
    beams = np.stack([np.cos(angles), np.sin(angles), np.zeros(scan.beams)])
    carrier = int(model.site_bodyid[site])
    hit, distance = np.empty(scan.beams, np.int32), np.empty(scan.beams)

    def read() -> Array:
        ways = np.ascontiguousarray((data.site_xmat[site].reshape(3, 3) @ beams).T).ravel()
        mujoco.mj_multiRay(
            *(model, data, data.site_xpos[site], ways, None, True, carrier),
            *(hit, distance, None, scan.beams, scan.range_max),
        )
        return np.where(distance < 0, scan.range_max, np.maximum(distance, scan.range_min))

    return [Part("ranges", f"ranges[0:{scan.beams}]", read)]


def _by_component(
    contract: Contract, alias: str, world: Model, episode: Read, owner: str
) -> list[Part]:
    """Any other type: each field from the sensor of its name, or each component from its own."""
    parts = []
    for each in contract.fields.values():
        if each.topic != alias or each.path is None:
            continue
        if each.name == contract.episode.reset:
            parts.append(Part(each.name, each.path, episode))
            continue
        components = contract.components(each.name)
        names = [each.name] if _has_sensor(world, each.name) else list(components)
        slots = [_sensor_slot(world, name, owner) for name in names]
        places = np.concatenate([np.arange(first, first + width) for first, width in slots])
        if len(places) != len(component_labels(each.path)):
            raise ContractError(
                f"{owner}: field {each.name!r} has {len(components)} components, sensor "
                f"{names[0]!r} gives {len(places)}"
            )
        parts.append(Part(each.name, each.path, _taken(world.data.sensordata, places)))
    return parts


def _has_sensor(world: Model, name: str) -> bool:
    return mujoco.mj_name2id(world.model, mujoco.mjtObj.mjOBJ_SENSOR, name) >= 0


def _sensor_slot(world: Model, name: str, owner: str) -> tuple[int, int]:
    if not _has_sensor(world, name):
        kind = mujoco.mjtObj.mjOBJ_SENSOR
        raise world.missing(owner, "sensor", name, kind, world.model.nsensor)
    sensor = world.model.sensor(name)
    return int(sensor.adr[0]), int(sensor.dim[0])
