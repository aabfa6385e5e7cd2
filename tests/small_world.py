"""A robot of two joints: a contract, a bundle of random weights, a world of three small files."""

from __future__ import annotations

from pathlib import Path

from iql_ros.bundle import Bundle
from iql_ros.bundles.format import graph_metadata
from iql_ros.contract import Contract
from tests.small_bundle import Mlp, write_bundle

MAX_AGE_S = 0.2

MODEL = """
<mujoco>
  <option timestep="0.005" gravity="0 0 0" integrator="implicitfast"/>
  <worldbody>
    <camera name="front" pos="0 -1.2 0.3" xyaxes="1 0 0 0 0.2 1"/>
    <light pos="0 -1 2"/>
    <body name="upper">
      <joint name="a" axis="0 1 0" damping="0.1" armature="0.05"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.5"/>
      <body name="lower" pos="0.3 0 0">
        <joint name="b" axis="0 1 0" damping="0.1" armature="0.05"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.3"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <velocity name="drive_a" joint="a" kv="5"/>
    <velocity name="drive_b" joint="b" kv="5"/>
  </actuator>
</mujoco>
"""

WORLD = """
format: 1
world: two_joints
model: model.xml
contract: contract.yaml
sensor_hz: 100
topics:
  joints: {noise: {position: 0.0002, velocity: 0.005}}
actuators: {drive_a: dq_0, drive_b: dq_1}
start:
  joints: {a: [-0.5, 0.5], b: [-0.5, 0.5]}
success: "abs(q_a) < 0.3"
time_limit_s: 2.0
camera: front
"""


def write_world(folder: Path, contract: Contract) -> Path:
    """Writes model, contract and world file; returns the last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.xml").write_text(MODEL)
    (folder / "contract.yaml").write_text(contract.canonical_json())
    world = folder / "world.yaml"
    world.write_text(WORLD)
    return world


def joints_contract(tick: dict[str, object]) -> Contract:
    topics = {
        "joints": {
            "topic": "/joint_states",
            "type": "sensor_msgs/msg/JointState",
            "max_age_s": MAX_AGE_S,
            "clock": "header",
        },
        "command": {"topic": "/velocity", "type": "std_msgs/msg/Float64MultiArray"},
    }
    observations = [
        {"name": "q", "topic": "joints", "path": "position[a,b]"},
        {"name": "v", "topic": "joints", "path": "velocity[a,b]"},
    ]
    action = {"name": "dq", "topic": "command", "path": "data[0:2]", "limits": [-1, 1], "safe": 0}
    return Contract.model_validate(
        {
            "format": 1,
            "robot": "joints",
            "tick": tick,
            "topics": topics,
            "observations": observations,
            "actions": [action],
            "reward": {"expression": "-q_a"},
        }
    )


def write_joint_bundle(out: Path, tick: dict[str, object], seed: int = 3) -> Bundle:
    """A bundle of weights drawn from `seed`."""
    contract = joints_contract(tick)
    mlp = Mlp.drawn(seed, contract=contract)
    policy = mlp.graph(graph_metadata(contract))
    return write_bundle(out, mlp, contract=contract, policy=policy, golden=mlp.golden())
