"""What the demo of each shipped robot does: data, for `demo.py` to follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OverRos:
    """Simulator and controller as two processes over DDS.

    Attributes:
        speed: simulated seconds per second while successes are counted.
        latency_episodes: episodes at real time, for the latency.
    """

    speed: float
    latency_episodes: int


@dataclass(frozen=True)
class Recipe:
    """From scripted operators to a policy that is judged.

    Attributes:
        robot: its contract and its world have this name.
        suite: scenarios of the gate.
        out: folder for everything, if no other is given.
        dataset: name of the HDF5 file.
        recorded: episodes of the operators.
        training: options of `iql-ros train` by algorithm.
        judged: nominal episodes that each policy drives.
        verb: what a policy is to do, for the table: to do, does, done.
        over_ros: judge over DDS; None: in lockstep, as the gate does.
    """

    robot: str
    suite: str
    out: Path
    dataset: str
    recorded: int
    training: Mapping[str, Sequence[str]]
    judged: int
    verb: tuple[str, str, str]
    over_ros: OverRos | None = None


RECIPES: Mapping[str, Recipe] = {
    recipe.robot: recipe
    for recipe in (
        Recipe(
            robot="arm6",
            suite="arm6",
            out=Path("runs/demo"),
            dataset="arm.h5",
            recorded=1400,
            training={
                "bc": ["--steps", "8000"],
                # In lockstep 297 of 300 reached with these, 194 of 200 with a discount of 0.99:
                # an episode takes some 25 steps.
                "iql": [
                    *("--steps", "12000", "--set", "discount=0.95"),
                    *("--set", "expectile=0.8", "--set", "inverse_temperature=6"),
                ],
            },
            judged=100,
            verb=("reach", "reaches", "reached"),
            over_ros=OverRos(speed=5.0, latency_episodes=8),
        ),
        # Advantages are a few hundredths, hence the large inverse temperature. The actor learns few
        # episodes by heart at that, hence so many.
        Recipe(
            robot="diffbot",
            suite="diffbot",
            out=Path("runs/demo_diffbot"),
            dataset="diffbot.h5",
            recorded=1000,
            training={
                "bc": [
                    *("--steps", "10000", "--set", "hidden=[128,128]"),
                    *("--set", "learning_rate=0.001"),
                ],
                "iql": [
                    *("--steps", "10000", "--set", "hidden=[128,128]"),
                    *("--set", "learning_rate=0.001", "--set", "discount=0.97"),
                    *("--set", "expectile=0.8", "--set", "inverse_temperature=8"),
                ],
            },
            judged=100,
            verb=("arrive", "arrives", "arrived"),
        ),
        Recipe(
            robot="cartpole",
            suite="cartpole",
            out=Path("runs/demo_cartpole"),
            dataset="cartpole.h5",
            recorded=1600,
            training={
                "bc": [
                    *("--steps", "6000", "--set", "hidden=[128,128]"),
                    *("--set", "learning_rate=0.001"),
                ],
                "iql": [
                    *("--steps", "12000", "--set", "hidden=[128,128]"),
                    *("--set", "learning_rate=0.001", "--set", "discount=0.95"),
                    *("--set", "expectile=0.8", "--set", "inverse_temperature=2"),
                ],
            },
            judged=100,
            verb=("swing up", "swings up", "swung up"),
        ),
    )
}
