"""Renders the arm to a picture: `MUJOCO_GL=egl python -m sim.picture docs/images/arm.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import mujoco
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from sim.world import World, load_world

WIDTH, HEIGHT = 800, 500


def render(world: World, camera: str = "overview") -> NDArray[np.uint8]:
    """The world as it stands, shape (HEIGHT, WIDTH, 3), RGB."""
    with mujoco.Renderer(world.model, HEIGHT, WIDTH) as renderer:
        renderer.update_scene(world.data, camera)
        return renderer.render()


def main(path: str) -> None:
    """Writes a picture of the arm at the start of an episode."""
    imsave(Path(path), render(load_world("arm6", seed=5)))


if __name__ == "__main__":
    main(sys.argv[1])
