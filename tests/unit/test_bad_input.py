"""What a user meets in `train` when the data or the settings do not allow it: errors, findings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from iql_ros.errors import DatasetError
from tests.small_dataset import point_columns, point_contract, write_point_dataset
from training.learning.checkpoint import RunError
from training.learning.config import ConfigError, TrainConfig, load_config
from training.learning.train import train

CONFIG = TrainConfig(
    steps=10, hidden=(8,), batch_size=16, log_every=10, evaluate_every=10, checkpoint_every=10
)


def quiet(step: int, losses: object, updates_per_s: float) -> None:
    """A report that shows nothing."""


def findings_of(run: Path) -> list[str]:
    return json.loads((run / "run.json").read_text())["findings"]


@pytest.mark.parametrize(
    ("column", "place", "named"),
    [
        ("observations", (7, 1), r"'observations'\[7, 1\] \(p_y\) is nan"),
        ("next_observations", (7, 0), r"'next_observations'\[7, 0\] \(p_x\) is nan"),
        ("actions", (3, 0), r"'actions'\[3, 0\] \(v_x\) is nan"),
        ("rewards", (9,), r"'rewards'\[9\] is nan"),
    ],
)
def test_a_nan_is_refused_with_its_place_and_the_fix(
    tmp_path: Path, column: str, place: tuple[int, ...], named: str
) -> None:
    columns = point_columns()
    columns[column][place] = np.nan
    dataset = write_point_dataset(tmp_path / "data.h5", columns)

    with pytest.raises(DatasetError, match=named + r".*every value must be finite; drop those"):
        train(dataset, tmp_path / "run", CONFIG, progress=quiet)
    assert not (tmp_path / "run").exists()


def test_one_episode_trains_only_without_held_out_data(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5", point_columns(episodes=1))

    with pytest.raises(DatasetError, match=r"1 episode\(s\), .*set held_out_fraction to 0"):
        train(dataset, tmp_path / "run", CONFIG, progress=quiet)
    whole = CONFIG.model_copy(update={"held_out_fraction": 0.0})
    run = train(dataset, tmp_path / "run", whole, progress=quiet)

    assert run.finished
    assert run.metrics == {}


def test_constant_rewards_train_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {**point_columns(), "rewards": np.full(300, 0.25, np.float32)}
    dataset = write_point_dataset(tmp_path / "data.h5", columns)

    run = train(dataset, tmp_path / "run", CONFIG, progress=quiet)

    (finding,) = [f for f in findings_of(run.path) if "reward" in f]
    assert re.match(r"every reward is 0\.25: .*IQL can only imitate; check the reward", finding)
    assert finding in caplog.text


def test_constant_rewards_have_no_span_to_scale(tmp_path: Path) -> None:
    columns = {**point_columns(), "rewards": np.zeros(300, np.float32)}
    dataset = write_point_dataset(tmp_path / "data.h5", columns)
    config = CONFIG.model_copy(update={"return_span": 1000.0})

    with pytest.raises(DatasetError, match=r"return_span 1000 .*all 12 episode\(s\) return 0;"):
        train(dataset, tmp_path / "run", config, progress=quiet)


def test_actions_beyond_the_limits_and_still_observations_are_findings(tmp_path: Path) -> None:
    columns = point_columns()
    columns["actions"][3, 1] = 9.0
    dataset = write_point_dataset(tmp_path / "data.h5", columns)

    run = train(dataset, tmp_path / "run", CONFIG, progress=quiet)

    clipped, still = findings_of(run.path)
    assert clipped == (
        "action 'v_y': 1 of 300 values lie outside [-0.5, 0.5], the farthest 9: clipped"
    )
    assert still.startswith("observation 'p_z' is always 0 in the training episodes: ")


def test_a_run_does_not_go_on_with_a_dataset_of_another_contract(tmp_path: Path) -> None:
    train(write_point_dataset(tmp_path / "a.h5"), tmp_path / "run", CONFIG, progress=quiet)
    other = write_point_dataset(tmp_path / "b.h5", contract=point_contract(limit=0.6))

    with pytest.raises(RunError, match=r"contract: actions\[v\]\.limits.* -0\.5 against -0\.6"):
        train(other, tmp_path / "run", CONFIG, resume=True, progress=quiet)


def test_the_span_of_returns_is_resolved_in_the_recorded_config(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    config = CONFIG.model_copy(update={"return_span": 1000.0})

    run = train(dataset, tmp_path / "run", config, progress=quiet)

    recorded = load_config(tmp_path / "run" / "config.yaml")
    returns = point_columns()["rewards"].reshape(12, 25).sum(axis=1)
    assert recorded == run.config
    assert recorded.reward_scale == pytest.approx(1000.0 / np.ptp(returns), rel=1e-5)
    # Both what was asked and what was recorded go on with the run.
    for again in (config, recorded):
        assert train(dataset, tmp_path / "run", again, resume=True, progress=quiet).finished


def test_a_scale_and_a_span_that_disagree_are_refused(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    config = CONFIG.model_copy(update={"return_span": 1000.0, "reward_scale": 2.0})

    with pytest.raises(
        ConfigError, match=r"reward_scale 2 is given, and return_span 1000 makes it"
    ):
        train(dataset, tmp_path / "run", config, progress=quiet)
