"""The arm in MuJoCo, in lockstep: a joint velocity command in, sensor readings out.

No ROS and no clock of its own: time passes only in `advance`. Every episode draws from a
generator of its own, made from the seed and the episode's number, so episode 7 has the same
start, target and noise whatever controller runs, and two controllers can be compared pairwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.task import REACHED_M, draw_start, draw_target

MODEL = Path(__file__).parent / "models" / "arm6.xml"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")

SENSOR_NS = 10_000_000  # 100 Hz
READINGS_PER_STEP = 5  # so the control rate is 20 Hz
STEP_S = SENSOR_NS * READINGS_PER_STEP * 1e-9

# Standard deviations: 20-bit encoders, filtered differences of them, current-based torques,
# and forward kinematics on a robot whose calibration is good.
NOISE = np.repeat([2e-4, 5e-3, 0.2, 3e-4], [6, 6, 6, 3])  # rad, rad/s, N m, m

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What the sensors say at one instant; the arrays are read-only.

    Attributes:
        t_ns: simulated time, ns.
        episode: number of the episode.
        q: joint angles, shape (6,), rad.
        dq: joint velocities, shape (6,), rad/s.
        effort: joint torques, shape (6,), N m.
        tcp: position of the tool's tip in the base frame, shape (3,), m.
        tcp_rotation: its orientation as a quaternion x, y, z, w, shape (4,).
        target: the point to reach, shape (3,), m.
    """

    t_ns: int
    episode: int
    q: Array
    dq: Array
    effort: Array
    tcp: Array
    tcp_rotation: Array
    target: Array

    @property
    def distance(self) -> float:
        """Measured distance from the tool's tip to the target, m."""
        return float(np.linalg.norm(self.target - self.tcp))


class ArmWorld:
    """A six-axis arm, its target and its sensors."""

    def __init__(self, seed: int, start_ns: int = 1_000_000_000) -> None:
        """Stands the arm at the start of episode 0.

        Args:
            seed: fixes starts, targets and sensor noise of all episodes.
            start_ns: simulated time at which the world begins, ns.
        """
        self._seed = seed
        self._model = mujoco.MjModel.from_xml_path(str(MODEL))
        self._model.geom("target").size[0] = REACHED_M
        self._data = mujoco.MjData(self._model)
        self._tcp = self._data.site("tcp")
        self._substeps = round(SENSOR_NS * 1e-9 / self._model.opt.timestep)
        self._t_ns = start_ns
        self.place(0)

    @property
    def model(self) -> mujoco.MjModel:
        """The MuJoCo model, for rendering."""
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """The MuJoCo state, for rendering."""
        return self._data

    def place(self, episode: int) -> None:
        """Puts arm and target where an episode begins; no time passes."""
        self._episode = episode
        self._rng = np.random.default_rng([self._seed, episode])
        self._target = draw_target(self._rng)
        self._target.setflags(write=False)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = draw_start(self._rng)
        self._data.mocap_pos[0] = self._target
        mujoco.mj_forward(self._model, self._data)

    def reset(self, episode: int) -> tuple[Reading, ...]:
        """Begins an episode, and lets the arm stand for one control period.

        Returns:
            The readings of that period; the controller's first decision follows the last.
        """
        self.place(episode)
        return self.step(np.zeros(len(JOINTS)))

    def step(self, command: ArrayLike) -> tuple[Reading, ...]:
        """Lets one control period pass under joint velocities `command` (6,), rad/s."""
        return tuple(self.advance(command) for _ in range(READINGS_PER_STEP))

    def advance(self, command: ArrayLike) -> Reading:
        """Lets 10 ms pass under joint velocities `command` (6,), rad/s, and reads the sensors."""
        self._data.ctrl[:] = command
        mujoco.mj_step(self._model, self._data, self._substeps)
        self._t_ns += SENSOR_NS
        return self.read()

    def read(self) -> Reading:
        """Reads the sensors now; the noise differs from call to call."""
        data = self._data
        measured = np.concatenate([data.qpos, data.qvel, data.qfrc_actuator, self._tcp.xpos])
        measured += NOISE * self._rng.standard_normal(NOISE.size)
        measured.setflags(write=False)
        rotation = np.empty(4)
        mujoco.mju_mat2Quat(rotation, self._tcp.xmat)
        rotation = np.roll(rotation, -1)  # MuJoCo writes w first, ROS last
        rotation.setflags(write=False)
        return Reading(
            t_ns=self._t_ns,
            episode=self._episode,
            q=measured[0:6],
            dq=measured[6:12],
            effort=measured[12:18],
            tcp=measured[18:21],
            tcp_rotation=rotation,
            target=self._target,
        )
