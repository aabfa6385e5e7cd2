"""A robot's log of any length, written in seconds: each topic's payloads are one numpy matrix.

JointState of 7 joints at 500 Hz, Imu at 200, commands at 100, odometry at 50 Hz, and, if
wanted, rgb images of 640x480 at 10 Hz: 51,000 messages a minute without the images.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_typestore

from iql_ros.contract import Contract

STORAGES = ("mcap_none", "mcap_lz4", "mcap_zstd", "sqlite3")
START_NS, SECOND_NS = 1_700_000_000_000_000_000, 1_000_000_000
STORE = get_typestore(Stores.LATEST)
JOINTS = [f"joint_{i}" for i in range(7)]
IMAGE_SHAPE = (480, 640, 3)
RATES = {"/joint_states": 500, "/imu": 200, "/command": 100, "/odom": 50, "/image": 10}
TYPES = {
    "/joint_states": "sensor_msgs/msg/JointState",
    "/imu": "sensor_msgs/msg/Imu",
    "/command": "std_msgs/msg/Float64MultiArray",
    "/odom": "nav_msgs/msg/Odometry",
    "/image": "sensor_msgs/msg/Image",
}
WANTED = [topic for topic in RATES if topic != "/image"]


def contract() -> Contract:
    """Steps of 20 Hz that need every topic but the images."""
    joints = ",".join(JOINTS)
    paths = {
        "position": ("joints", f"position[{joints}]"),
        "velocity": ("joints", f"velocity[{joints}]"),
        "turning": ("imu", "angular_velocity.{x,y,z}"),
        "acceleration": ("imu", "linear_acceleration.{x,y,z}"),
        "place": ("odom", "pose.pose.position.{x,y}"),
        "heading": ("odom", "pose.pose.orientation.{z,w}"),
        "speed": ("odom", "twist.twist.linear.x"),
    }
    topics = {"joints": "/joint_states", "imu": "/imu", "odom": "/odom", "command": "/command"}
    return Contract.model_validate(
        {
            "format": 1,
            "robot": "benchmark",
            "tick": {"rate_hz": 20},
            "topics": {
                alias: {"topic": topic, "type": TYPES[topic], "max_age_s": 0.2}
                for alias, topic in topics.items()
            },
            "observations": [
                {"name": name, "topic": alias, "path": path}
                for name, (alias, path) in paths.items()
            ],
            "actions": [
                {
                    "name": "torque",
                    "topic": "command",
                    "path": "data[0:7]",
                    "limits": [-9, 9],
                    "safe": 0,
                }
            ],
            "reward": {"expression": "-abs(place_x)"},
            "episode": {"max_steps": 200},
        }
    )


def write_log(path: Path, storage: str, seconds: int, *, images: bool) -> None:
    """Writes a log of `storage`, one of STORAGES, to a file or, for sqlite3, a bag folder."""
    topics = [topic for topic in RATES if images or topic != "/image"]
    writers = {"mcap": _write_mcap, "sqlite3": _write_sqlite3}
    writers[storage.partition("_")[0]](path, storage, topics, _messages(topics, seconds))


def _write_mcap(
    path: Path, storage: str, topics: list[str], messages: Iterator[tuple[str, int, bytes]]
) -> None:
    compression = CompressionType[storage.partition("_")[2].upper()]
    with path.open("wb") as file:
        writer = McapWriter(file, compression=compression)
        writer.start("ros2")
        channels = {}
        for topic in topics:
            text, _ = STORE.generate_msgdef(TYPES[topic], ros_version=2)
            schema = writer.register_schema(TYPES[topic], "ros2msg", text.encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        for topic, t_ns, payload in messages:
            writer.add_message(channels[topic], t_ns, payload, t_ns)
        writer.finish()


def _write_sqlite3(
    path: Path, _: str, topics: list[str], messages: Iterator[tuple[str, int, bytes]]
) -> None:
    with BagWriter(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {t: writer.add_connection(t, TYPES[t], typestore=STORE) for t in topics}
        for topic, t_ns, payload in messages:
            writer.write(connections[topic], t_ns, payload)


def _messages(topics: list[str], seconds: int) -> Iterator[tuple[str, int, bytes]]:
    """All messages in order of time, a second at a time: topic, receive time, payload."""
    rng = np.random.default_rng(0)
    makers = {topic: _maker(topic, rng) for topic in topics}
    for second in range(seconds):
        batch = []
        for topic, make in makers.items():
            t_ns = (
                START_NS
                + second * SECOND_NS
                + np.arange(RATES[topic]) * (SECOND_NS // RATES[topic])
            )
            times = t_ns + rng.integers(0, 200_000, len(t_ns))  # it takes 0.1 ms to arrive
            rows = make(t_ns)
            batch += [(t, topic, rows[i]) for i, t in enumerate(times.tolist())]
        batch.sort(key=lambda item: item[0])
        yield from ((topic, t, row.tobytes()) for t, topic, row in batch)


def _maker(
    topic: str, rng: np.random.Generator
) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    """Makes payloads (N, B) for stamps (N,): one template, in which bytes are replaced."""
    message, marked = _template(topic)
    raw = bytes(STORE.serialize_cdr(message, TYPES[topic]))
    template = np.frombuffer(raw, np.uint8)
    places = [raw.index(struct.pack("<d", mark)) for mark in marked]
    has_stamp = topic != "/command"

    def make(t_ns: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.tile(template, (len(t_ns), 1))
        if has_stamp:
            rows[:, 4:12] = np.stack(np.divmod(t_ns, SECOND_NS), 1).astype("<u4").view(np.uint8)
        values = np.sin(t_ns[:, None] / 1e9 + np.arange(len(places)))
        values += rng.normal(0, 1e-3, values.shape)
        for column, place in enumerate(places):
            rows[:, place : place + 8] = values[:, column : column + 1].copy().view(np.uint8)
        return rows

    return make


def _template(topic: str) -> tuple[Any, list[float]]:
    """A message, and the unique numbers in it that mark what each payload has of its own."""
    marks = [1e300 + i * 1e290 for i in range(24)]
    types = STORE.types
    header = types["std_msgs/msg/Header"](
        types["builtin_interfaces/msg/Time"](sec=1, nanosec=2), "base_link"
    )

    def vector(x: float, y: float, z: float) -> Any:
        return types["geometry_msgs/msg/Vector3"](x, y, z)

    def turned(z: float, w: float) -> Any:
        return types["geometry_msgs/msg/Quaternion"](0.0, 0.0, z, w)

    kind = types[TYPES[topic]]
    if topic == "/joint_states":
        position, velocity, effort = np.array(marks[:21]).reshape(3, 7)
        return kind(header, JOINTS, position, velocity, effort), marks[:21]
    if topic == "/imu":
        nine = np.zeros(9)
        parts = (vector(*marks[:3]), nine, vector(*marks[3:6]), nine)
        return kind(header, turned(*marks[6:8]), nine, *parts), marks[:8]
    if topic == "/command":
        layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        return kind(layout, np.array(marks[:7])), marks[:7]
    if topic == "/odom":
        many = np.zeros(36)
        place = types["geometry_msgs/msg/Point"](marks[0], marks[1], 0.0)
        pose = types["geometry_msgs/msg/Pose"](place, turned(marks[2], marks[3]))
        twist = types["geometry_msgs/msg/Twist"](
            vector(marks[4], 0.0, 0.0), vector(0.0, 0.0, marks[5])
        )
        with_pose = types["geometry_msgs/msg/PoseWithCovariance"](pose, many)
        with_twist = types["geometry_msgs/msg/TwistWithCovariance"](twist, many)
        return kind(header, "base_link", with_pose, with_twist), marks[:6]
    height, width, depth = IMAGE_SHAPE
    # A gradient with a little noise: LZ4 halves it or better, as it does camera images.
    ramp = np.add.outer(np.arange(height), np.arange(width))[:, :, None] // 4
    noise = np.random.default_rng(1).integers(0, 2, IMAGE_SHAPE) * (ramp % 3 == 0)
    pixels = (ramp + noise + np.arange(depth)).astype(np.uint8).ravel()
    return kind(header, height, width, "rgb8", 0, width * depth, pixels), []
