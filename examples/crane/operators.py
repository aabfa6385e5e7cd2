"""Crane drivers of mixed skill: what stands in for the people who drove your robot."""

import numpy as np


class Operator:
    """One driver for one episode. Skill is how much of the swing he damps."""

    def __init__(self, rng, world):
        self.rng = rng
        self.speed = rng.uniform(0.15, 0.6)  # m/s, how fast he dares to go
        self.skill = rng.choice([0.0, 0.5, 1.0])
        self.hand = rng.uniform(0.02, 0.1)  # m/s, how unsteady
        self.lapse = 0

    def __call__(self, fields):
        """The trolley's velocity, m/s, shape (1,)."""
        if self.lapse == 0 and self.rng.random() < 0.05:
            self.lapse = int(self.rng.integers(4, 12))  # looks elsewhere
            self.wrong = self.rng.uniform(-self.speed, self.speed)
        if self.lapse:
            self.lapse -= 1
            return np.array([self.wrong])
        offset, sway = float(fields["offset"][0]), float(fields["sway"][0])
        wanted = np.clip(1.5 * offset, -self.speed, self.speed) + self.skill * sway
        return np.clip([wanted + self.rng.normal(0, self.hand)], -0.6, 0.6)
