"""A robot whose observation remembers: from its bag to bundles that act, by rule and by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iql_ros.backends.numpy import open_numpy
from iql_ros.bundle import load_bundle
from iql_ros.policies import verify
from tests.bags import float64, toy_contract, twist, write_bag
from training.conversion.convert import convert
from training.export import export_run
from training.learning.config import load_config
from training.learning.train import train
from training.replay import replay

SHORT = ["steps=60", "log_every=60", "evaluate_every=60", "checkpoint_every=60", "hidden=[16]"]
SAMPLED = ["extraction=sampled", "samples=8", "selection=drawn"]


def slide(folder: Path) -> Path:
    """A slide that is pushed to the middle."""
    contract = toy_contract(
        observations=[
            {"name": "x", "topic": "state", "path": "data"},
            {"name": "before", "history_of": "x", "steps": 2},
            {"name": "last", "previous_action": True},
        ],
        reward={"expression": "-abs(next_x)"},
        episode={"max_steps": 25},
    )
    rng, place, entries = np.random.default_rng(0), 1.0, []
    for k in range(400):
        if k % 25 == 0:
            place = rng.uniform(-3, 3)
        push = float(np.clip(-2 * place + rng.normal(0, 0.3), -9, 9))
        entries += [
            ("/state", "std_msgs/msg/Float64", 100 * k, float64(place)),
            ("/cmd", "geometry_msgs/msg/Twist", 100 * k + 50, twist(push)),
        ]
        place += 0.1 * push
    convert([write_bag(folder / "bag", entries)], contract, folder / "slide.h5")
    return folder


def test_history_goes_the_whole_way_and_replays_to_the_bit(tmp_path: Path) -> None:
    bag = slide(tmp_path) / "bag"
    train(tmp_path / "slide.h5", tmp_path / "run", load_config(None, [*SAMPLED, *SHORT]))

    def lived(bundle: Path, turn: str) -> np.ndarray:
        summary = replay(bundle, bag, tmp_path / turn)
        assert summary["statuses"]["ok"] > 390
        return np.load(tmp_path / turn / "replay.npz")["policy"]

    actions = {}
    for stochastic in (False, True):
        out = tmp_path / f"bundle_{stochastic}"
        bundle = load_bundle(export_run(tmp_path / "run", out, stochastic=stochastic))
        assert bundle.manifest.io.input.components == ("x", "before_1", "before_2", "last_u")
        assert verify(bundle, open_numpy).worst_error < 1e-5
        actions[stochastic] = lived(out, f"replay_{stochastic}")
    assert lived(tmp_path / "bundle_True", "again").tobytes() == actions[True].tobytes()
    # What draws does something else.
    assert np.nanmean(np.abs(actions[True] - actions[False])) > 1e-3
