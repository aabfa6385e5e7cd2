"""CartPole-v1 from a file of recorded discrete actions to a bundle that holds the pole.

The dataset is of gymnasium's CartPole-v1, in the layout of the imitation library, and goes the
way that a robot's does: import, training, export with verification. Then the bundle's policy
acts in the controller of the robot: joint states in, force commands out, as message payloads.

    python -m benchmarks.cartpole [--quick] [--dataset FILE.npz]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from benchmarks._report import progress, report
from iql_ros.bundle import load_bundle
from iql_ros.contract import load_contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.controller import Controller
from iql_ros.policies import open_policy
from iql_ros.statistics import wilson_interval
from iql_ros.wire import Reader, Writer, make_types
from training.datasets.tools import import_dataset
from training.export import export_run
from training.learning.config import load_config
from training.learning.train import train

ROOT = Path(__file__).parents[1]
DATASET = ROOT.parent / "shared" / "datasets" / "cartpole_expert_discrete.npz"
CONTRACT = ROOT / "examples" / "cartpole" / "contract.yaml"
CONFIG = ROOT / "examples" / "cartpole" / "train.yaml"

LIMIT = 500
"""Steps after which CartPole-v1 counts as held."""
PERIOD_NS = 20_000_000
STATE = ["position[slider]", "velocity[slider]", "position[hinge]", "velocity[hinge]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="finish in under a minute")
    parser.add_argument("--dataset", type=Path, default=DATASET, help="the .npz file")
    arguments = parser.parse_args()
    episodes, overrides = (20, ["steps=4000", "batch_size=128"]) if arguments.quick else (100, [])
    with tempfile.TemporaryDirectory(prefix="iql_ros_cartpole_") as folder:
        began = time.monotonic()
        findings = make_bundle(arguments.dataset, Path(folder), overrides)
        seconds = time.monotonic() - began
        progress(f"bundle after {seconds:.0f} s; {episodes} episodes")
        lengths, kinds = hold(Path(folder) / "bundle", episodes)
    held = int((lengths == LIMIT).sum())
    results: dict[str, object] = {
        "held": held,
        "episodes": episodes,
        "interval": wilson_interval(held, episodes),
        "shortest_steps": int(lengths.min()),
        "mean_steps": float(lengths.mean()),
        "statuses": kinds,
        "training_s": round(seconds, 1),
        "findings": findings,
    }
    report("cartpole", arguments.quick, results)


def make_bundle(source: Path, folder: Path, overrides: list[str]) -> list[str]:
    """Imports, trains and exports to `folder/bundle`; returns what was amiss in the data."""
    data = folder / "cartpole.h5"
    findings = import_dataset(
        "imitation", source, data, contract=load_contract(CONTRACT), time_limit=LIMIT
    )
    train(data, folder / "run", load_config(CONFIG, overrides), progress=lambda *_: None)
    export_run(folder / "run", folder / "bundle")
    return findings


def hold(bundle_folder: Path, episodes: int) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Holds the pole from the first `episodes` seeds.

    Returns:
        Steps until the pole fell or the limit came, (episodes,), and ticks by status.
    """
    bundle = load_bundle(bundle_folder)
    policy = open_policy(bundle, "onnx").policy
    world = gymnasium.make("CartPole-v1")
    lengths, kinds = [], dict[str, int]()
    for seed in range(episodes):
        driver = _Driver(Controller(bundle.contract, policy, make_types({})))
        state, _ = world.reset(seed=seed)
        steps, ended = 0, False
        while not ended:
            push, status = driver(state)
            kinds[status] = kinds.get(status, 0) + 1
            state, _, fell, timed_out, _ = world.step(push)
            steps, ended = steps + 1, fell or timed_out
        lengths.append(steps)
    return np.array(lengths), kinds


class _Driver:
    """The robot's side of the topics: a state to a payload, a command's payload to a push."""

    def __init__(self, controller: Controller) -> None:
        contract, types = controller.contract, make_types({})
        assert contract.choices is not None
        self._controller = controller
        self._choices = contract.choices
        self._state = Writer(types, contract.topics["joints"].type, STATE)
        self._command = Reader(types, contract.topics["push"].type, [contract.actions[0].path])
        self._t_ns = 0

    def __call__(self, state: np.ndarray[Any, Any]) -> tuple[int, str]:
        """Number of the choice that is commanded, and the tick's status."""
        self._t_ns += PERIOD_NS
        self._controller.put("joints", self._t_ns, self._state.write(state.astype(np.float64)))
        command = self._controller.tick(self._t_ns)
        force = self._command.read(command.payloads["push"])
        assert force is not None
        number, is_choice = nearest_choice(force, self._choices)
        assert is_choice.all()
        return int(number[0]), command.status.name


if __name__ == "__main__":
    main()
