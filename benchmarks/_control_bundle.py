"""A bundle of random weights for a six-axis arm: what the benchmarks of the node run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks._random_bundle import write_random_bundle
from iql_ros.contract import Contract
from training.learning.config import TrainConfig

JOINTS = tuple(f"joint_{i}" for i in range(1, 7))
QOS = {"reliability": "best_effort", "depth": 1}


def write_arm_bundle(
    out: Path, tick: dict[str, Any], joints: str, command: str, max_age_s: float = 0.1
) -> Path:
    """Writes the bundle: 12 observations from topic `joints`, 6 actions, a net of 256x256."""
    picked = ",".join(JOINTS)
    state = {"topic": joints, "type": "sensor_msgs/msg/JointState", "max_age_s": max_age_s}
    contract = Contract.model_validate(
        {
            "format": 1,
            "robot": "bench",
            "tick": tick,
            "topics": {
                "joints": {**state, "qos": QOS},
                "command": {
                    "topic": command,
                    "type": "std_msgs/msg/Float64MultiArray",
                    "qos": QOS,
                },
            },
            "observations": [
                {"name": "q", "topic": "joints", "path": f"position[{picked}]"},
                {"name": "v", "topic": "joints", "path": f"velocity[{picked}]"},
            ],
            "actions": [
                {
                    "name": "dq",
                    "topic": "command",
                    "path": "data[0:6]",
                    "limits": [-1, 1],
                    "slew": 100,
                    "safe": 0,
                }
            ],
            "reward": {"expression": "0"},
        }
    )
    write_random_bundle(out, contract, TrainConfig(hidden=(256, 256)))
    return out
