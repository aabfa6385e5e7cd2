"""A world of three small files: two joints driven by velocity, as tests/ros/arm.py has them."""

from __future__ import annotations

from pathlib import Path

from iql_ros.contract import Contract

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
