"""Where an episode begins: drawn from ranges of joints and bodies."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from iql_ros.errors import ContractError
from sim.world_file import Place, Start


def draw_start(
    start: Start, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator
) -> None:
    """Draws all that `start` names, bodies first, each uniformly, and puts it into `data`.

    Raises:
        ContractError: the model has no such joint or body, or it cannot be placed.
    """
    for name, place in start.bodies.items():
        put_body(name, place, model, data, rng)
    for name, between in start.joints.items():
        data.qpos[_joint(model, name).qposadr[0]] = rng.uniform(*between)
    for name, between in start.velocities.items():
        data.qvel[_joint(model, name).dofadr[0]] = rng.uniform(*between)


def widened(start: Start, factor: float) -> Start:
    """The same with every range `factor` times as wide, around its middle."""

    def wide(between: tuple[float, float]) -> tuple[float, float]:
        low, high = between
        middle, half = (low + high) / 2, (high - low) / 2
        return middle - factor * half, middle + factor * half

    return Start(
        joints={name: wide(between) for name, between in start.joints.items()},
        velocities={name: wide(between) for name, between in start.velocities.items()},
        bodies={
            name: {key: wide(between) for key, between in ranges.items()}
            for name, ranges in start.bodies.items()
        },
    )


def _joint(model: mujoco.MjModel, name: str) -> mujoco._structs._MjModelJointViews:
    try:
        return model.joint(name)
    except KeyError:
        names = ", ".join(model.joint(i).name for i in range(model.njnt))
        raise ContractError(f"start: the model has no joint {name!r}, there are {names}") from None


def put_body(
    name: str,
    place: Place,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    rng: np.random.Generator,
) -> None:
    """Draws a place and puts the mocap or free body `name` there. Raises ContractError."""
    drawn: dict[str, float] = {key: float(rng.uniform(*range_)) for key, range_ in place.items()}
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if body < 0:
        others = ", ".join(model.body(i).name for i in range(1, model.nbody))
        raise ContractError(f"start: the model has no body {name!r}, it has {others}")
    mocap, joint = int(model.body_mocapid[body]), int(model.body_jntadr[body])
    if mocap >= 0:
        position, rotation = data.mocap_pos[mocap], data.mocap_quat[mocap]
    elif joint >= 0 and int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE):
        first = int(model.jnt_qposadr[joint])
        position, rotation = data.qpos[first : first + 3], data.qpos[first + 3 : first + 7]
    else:
        raise ContractError(f"start: body {name!r} is neither mocap nor free, it cannot be placed")
    if "azimuth" in drawn or "radius" in drawn:
        azimuth, radius = drawn.get("azimuth", 0.0), drawn.get("radius", 0.0)
        position[:2] = radius * math.cos(azimuth), radius * math.sin(azimuth)
    for key, axis in (("x", 0), ("y", 1), ("z", 2), ("height", 2)):
        if key in drawn:
            position[axis] = drawn[key]
    if "yaw" in drawn:
        half = drawn["yaw"] / 2
        rotation[:] = math.cos(half), 0.0, 0.0, math.sin(half)
