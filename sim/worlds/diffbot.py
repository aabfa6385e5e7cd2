"""Wheel odometry of the diffbot: what a driver makes of two encoders, slip and all."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from sim.world import Adapter, World

RADIUS_M, TRACK_M = 0.033, 0.160
COUNTS = 4096  # of an encoder, a turn (Dynamixel XL430-W250)

Array = NDArray[np.float64]


class Odometry:
    """Adds up what the wheels turned; begins at the robot's true pose, as after localisation."""

    def __init__(self, world: World) -> None:
        """Reads the joints wheel_left and wheel_right of the model, and begins with its base."""
        model, self._data = world.model, world.data
        self._wheels = [model.joint(f"wheel_{side}").qposadr[0] for side in ("left", "right")]
        self._base = model.joint("base").qposadr[0]
        self._period_s = world.file.period_ns * 1e-9
        self._time_s = np.inf
        self._twist = np.zeros(2)

    def position(self) -> Array:
        """x, y, z, m; takes in what the wheels turned since it was last asked."""
        self._update()
        return np.array([*self._place, 0.0])

    def orientation(self) -> Array:
        """x, y, z, w, as of the last position."""
        return np.array([0.0, 0.0, sin(self._yaw / 2), cos(self._yaw / 2)])

    def forward(self) -> Array:
        """Forward speed, m/s, as of the last position."""
        return self._twist[:1]

    def turning(self) -> Array:
        """Rate of turn, rad/s, as of the last position."""
        return self._twist[1:]

    def _update(self) -> None:
        count = 2 * pi / COUNTS
        turned = np.floor(self._data.qpos[self._wheels] / count) * count
        if self._data.time < self._time_s:  # another episode
            x, y, _, w, _, _, z = self._data.qpos[self._base : self._base + 7]
            self._place, self._yaw = np.array([x, y]), 2 * np.arctan2(z, w)
            self._turned = turned
        left, right = (turned - self._turned) * RADIUS_M
        ahead, turn = (left + right) / 2, (right - left) / TRACK_M
        middle = self._yaw + turn / 2
        self._place = self._place + ahead * np.array([cos(middle), sin(middle)])
        self._yaw += turn
        self._twist = np.array([ahead, turn]) / self._period_s
        self._turned, self._time_s = turned, self._data.time


def adapt(world: World) -> Adapter:
    """What `sim.world` asks for."""
    odometry = Odometry(world)
    return Adapter(
        sensors={
            "odom": {
                "pose.pose.position.{x,y,z}": odometry.position,
                "pose.pose.orientation.{x,y,z,w}": odometry.orientation,
                "twist.twist.linear.x": odometry.forward,
                "twist.twist.angular.z": odometry.turning,
            }
        }
    )
