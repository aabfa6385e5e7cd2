"""A bundle of random weights for a six-axis arm: what the benchmarks of the node run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iql_ros.bundle_format import Provenance
from iql_ros.bundle_writing import save_bundle
from iql_ros.contract import Contract
from training.export import export_graph, golden_observations, golden_pairs
from training.learning.config import TrainConfig
from training.learning.learner import create_learner
from training.learning.networks import DeployedPolicy

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
    size = contract.observation_size
    learner = create_learner(TrainConfig(hidden=(256, 256)), size, contract.action_size)
    policy = DeployedPolicy(
        learner.deployed(),
        np.zeros(size),
        np.ones(size),
        contract.action_low,
        contract.action_high,
    ).eval()
    states = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    save_bundle(
        out,
        contract=contract,
        policy=export_graph(policy, contract),
        golden=golden_pairs(policy, golden_observations(contract, states)),
        provenance=Provenance(
            dataset_digest=None, run="bench", algorithm="iql", seed=0, steps=0, versions={}
        ),
        metrics={},
        support=None,
    )
    return out
