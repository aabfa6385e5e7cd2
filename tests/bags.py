"""Small real bags, written by rosbags, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from iql_ros.contract import Contract

TYPES = get_typestore(Stores.LATEST)
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000

Entry = tuple[str, str, int, dict[str, Any]]
"""Topic, message type, receive time in ms after START_NS, fields of the message."""


def message(msgtype: str, fields: dict[str, Any]) -> Any:
    """A message of `msgtype`; nested messages are given as (type, fields)."""
    built = {
        name: message(*value) if isinstance(value, tuple) else value
        for name, value in fields.items()
    }
    return TYPES.types[msgtype](**built)


def payload(msgtype: str, fields: dict[str, Any]) -> bytes:
    """The message in CDR."""
    return bytes(TYPES.serialize_cdr(message(msgtype, fields), msgtype))


def float64(value: float) -> dict[str, Any]:
    """Fields of std_msgs/msg/Float64."""
    return {"data": value}


def twist(x: float = 0.0, z: float = 0.0) -> dict[str, Any]:
    """Fields of geometry_msgs/msg/Twist: forward and turning speed."""
    return {
        "linear": ("geometry_msgs/msg/Vector3", {"x": x, "y": 0.0, "z": 0.0}),
        "angular": ("geometry_msgs/msg/Vector3", {"x": 0.0, "y": 0.0, "z": z}),
    }


def write_bag(
    path: Path, entries: Sequence[Entry], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """Writes a rosbag2 folder with the messages in the order given."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {}
        for topic, msgtype, t_ms, fields in entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=TYPES)
            t_ns = START_NS + round(t_ms * MS)
            writer.write(connections[topic], t_ns, payload(msgtype, fields))
    return path


def toy_contract(**changes: Any) -> Contract:
    """Steps of 10 Hz from /state and /cmd, with some keys changed."""
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 10},
        "topics": {
            "state": {"topic": "/state", "type": "std_msgs/msg/Float64", "max_age_s": 0.25},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        "observations": [{"name": "x", "topic": "state", "path": "data"}],
        "actions": [
            {"name": "u", "topic": "cmd", "path": "linear.x", "limits": [-9, 9], "safe": 0}
        ],
        "reward": {"expression": "next_x - x + 10 * u"},
    }
    return Contract.model_validate({**base, **changes})
