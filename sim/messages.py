"""Readings as ROS messages and commands back: the simulator's side of the wire.

Recorder, lockstep loop and ROS node all use these bytes, so what a policy meets in one of
them is what it meets in the others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import LogError
from iql_ros.wire import Reader, Writer, make_types
from sim.world import JOINTS, Reading

SECOND_NS = 1_000_000_000
FRAME = "base_link"
COMMAND = "command"  # alias of the topic that takes commands

# Messages of one instant arrive one after the other; the joint states, which trigger the
# controller's step, come last.
ARRIVAL_GAP_NS = 50_000

_TYPES = make_types({})
_STAMP = ["header.stamp.sec", "header.stamp.nanosec"]
_JOINTS = Writer(
    _TYPES,
    "sensor_msgs/msg/JointState",
    [*_STAMP, "position[0:6]", "velocity[0:6]", "effort[0:6]"],
    {"name": list(JOINTS)},
)
_TCP = Writer(
    _TYPES,
    "geometry_msgs/msg/PoseStamped",
    [*_STAMP, "pose.position.{x,y,z}", "pose.orientation.{x,y,z,w}"],
    {"header.frame_id": FRAME},
)
_TARGET = Writer(
    _TYPES,
    "geometry_msgs/msg/PointStamped",
    [*_STAMP, "point.{x,y,z}"],
    {"header.frame_id": FRAME},
)
_EPISODE = Writer(_TYPES, "std_msgs/msg/Int32", ["data"])
_CLOCK = Writer(_TYPES, "rosgraph_msgs/msg/Clock", ["clock.sec", "clock.nanosec"])
_COMMAND_TYPE = "std_msgs/msg/Float64MultiArray"
_COMMAND_WRITER = Writer(_TYPES, _COMMAND_TYPE, ["data[0:6]"])
_COMMAND_READER = Reader(_TYPES, _COMMAND_TYPE, ["data[0:6]"])


class Message(NamedTuple):
    """One message: its topic's alias in the contract, when it arrives (ns), its CDR bytes."""

    alias: str
    arrival_ns: int
    payload: bytes


def encode(reading: Reading, announce: bool) -> list[Message]:
    """The messages of one instant, in the order of their arrival.

    Args:
        reading: what the sensors say.
        announce: also say which episode this is and where its target lies.
    """
    stamp = np.array(divmod(reading.t_ns, SECOND_NS), dtype=np.float64)
    payloads = []
    if announce:
        payloads = [
            ("episode", _EPISODE.write(np.array([float(reading.episode)]))),
            ("target", _TARGET.write(np.concatenate([stamp, reading.target]))),
        ]
    pose = np.concatenate([stamp, reading.tcp, reading.tcp_rotation])
    joints = np.concatenate([stamp, reading.q, reading.dq, reading.effort])
    payloads += [("tcp", _TCP.write(pose)), ("joints", _JOINTS.write(joints))]
    return [
        Message(alias, reading.t_ns + i * ARRIVAL_GAP_NS, payload)
        for i, (alias, payload) in enumerate(payloads)
    ]


def encode_clock(t_ns: int) -> bytes:
    """rosgraph_msgs/msg/Clock."""
    return _CLOCK.write(np.array(divmod(t_ns, SECOND_NS), dtype=np.float64))


def encode_command(command: NDArray[np.float64]) -> bytes:
    """std_msgs/msg/Float64MultiArray of joint velocities (6,), rad/s."""
    return _COMMAND_WRITER.write(command)


def decode_command(payload: bytes | memoryview) -> NDArray[np.float64]:
    """Joint velocities (6,), rad/s, of a std_msgs/msg/Float64MultiArray.

    Raises:
        LogError: it does not hold six finite numbers.
    """
    command = _COMMAND_READER.read(payload)
    if command is None:
        raise LogError(f"a command must hold 6 numbers: {_COMMAND_READER.why_absent(payload)}")
    if not np.isfinite(command).all():
        raise LogError(f"a command must be finite, this one is {command}")
    return command
