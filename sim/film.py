"""A short film of one episode, as an MP4 (H.264) that any browser plays.

    MUJOCO_GL=egl python -m sim.film bundle --suite arm6 --scenario nominal --episode 3 --out a.mp4

The gate renders in a process of its own: a graphics driver that crashes takes no verdict with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v3 as iio
import mujoco
import numpy as np
from numpy.typing import NDArray

from iql_ros.errors import IqlRosError
from iql_ros.files import write_bytes
from sim.gate import controller_of, make_trial
from sim.scenarios import Suite, load_suite
from sim.world import World

SIZE = (432, 288)
"""Pixels; multiples of 16, as the codec wants them."""
MOST_FRAMES = 60
LEAST_PERIOD_S = 0.05
QUALITY = 6
"""0 to 10, of imageio's ffmpeg."""
LIMIT_S = 180
REMEDY = "on Debian and Ubuntu: apt install libegl1 libegl-mesa0, and MUJOCO_GL=egl"


class Film:
    """Takes pictures of a world while an episode runs."""

    def __init__(self) -> None:
        """Opens nothing before the first picture."""
        self._renderer: mujoco.Renderer | None = None
        self._next_ns = 0
        self._frames: list[NDArray[np.uint8]] = []

    def _open(self, world: World) -> mujoco.Renderer:
        width, height = SIZE
        world.model.vis.global_.offwidth = max(width, world.model.vis.global_.offwidth)
        world.model.vis.global_.offheight = max(height, world.model.vis.global_.offheight)
        renderer = mujoco.Renderer(world.model, height, width)
        # Without shadows and mirrors a software renderer takes a third of the time.
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        self._camera = world.file.camera or -1
        limit_s = world.file.time_limit_s
        self._period_ns = round(1e9 * max(LEAST_PERIOD_S, limit_s / MOST_FRAMES))
        return renderer

    def see(self, world: World) -> None:
        """Takes a picture if it is time for one.

        Raises:
            Exception: whatever the graphics library here raises, if there is one at all.
        """
        if self._renderer is None:
            self._renderer = self._open(world)
        if world.t_ns >= self._next_ns:
            self._next_ns = world.t_ns + self._period_ns
            self._renderer.update_scene(world.data, self._camera)
            self._frames.append(np.ascontiguousarray(self._renderer.render()))

    def mp4(self) -> bytes:
        """The film, which rests on its last picture for a second."""
        rate_hz = 1e9 / self._period_ns
        with TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            iio.imwrite(
                path,
                np.stack([*self._frames, *self._frames[-1:] * round(rate_hz)]),
                plugin="FFMPEG",
                fps=rate_hz,
                quality=QUALITY,
                ffmpeg_log_level="error",
                output_params=["-movflags", "+faststart"],
            )
            return path.read_bytes()

    def close(self) -> None:
        """Gives the graphics context back."""
        if self._renderer is not None:
            self._renderer.close()


def film_episode(bundle: Path, suite: Suite, seed: int, scenario: str, episode: int) -> bytes:
    """Plays an episode in front of the camera, in this process."""
    trial = make_trial(suite, seed, partial(controller_of, bundle), scenario)
    film = Film()
    try:
        trial.run(episode, seen=film.see)
        return film.mp4()
    finally:
        film.close()


@dataclass(frozen=True)
class Filmed:
    """A film, or why there is none."""

    mp4: bytes | None
    missing: str | None


def film_apart(bundle: Path, suite: Suite, seed: int, scenario: str, episode: int) -> Filmed:
    """Films an episode in a process of its own."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "film.mp4"
        command = [sys.executable, "-m", "sim.film", str(bundle), "--suite", "-"]
        command += ["--seed", str(seed), "--scenario", scenario, "--episode", str(episode)]
        # Without a screen only EGL renders; with one, MuJoCo's own choice is left alone.
        environment = {**os.environ}
        if not environment.get("DISPLAY"):
            environment.setdefault("MUJOCO_GL", "egl")
        try:
            done = subprocess.run(
                [*command, "--out", str(out)],
                input=suite.model_dump_json(),
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return Filmed(None, f"rendering took longer than {LIMIT_S} s")
        if done.returncode == 0 and out.is_file():
            return Filmed(out.read_bytes(), None)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {done.returncode}"
        return Filmed(None, f"rendering is not there ({last.strip()}); {REMEDY}")


def main() -> None:
    """Films one episode of a suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument(
        "--suite", required=True, help="a shipped one, a YAML file, or - for JSON on stdin"
    )
    parser.add_argument("--scenario", default="nominal")
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the .mp4 file")
    given = parser.parse_args()
    try:
        suite = (
            Suite.model_validate_json(sys.stdin.read())
            if given.suite == "-"
            else load_suite(given.suite).narrowed()
        )
        film = film_episode(given.bundle, suite, given.seed, given.scenario, given.episode)
    except IqlRosError as error:
        sys.exit(f"error: {error}")
    write_bytes(given.out, film)


if __name__ == "__main__":
    main()
