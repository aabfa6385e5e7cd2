from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from iql_ros.cli import app
from tests.small_dataset import write_point_dataset
from training.learning.config import PRESETS, ConfigError, TrainConfig, load_config


def test_presets_are_those_of_the_paper() -> None:
    locomotion, sparse, narrow = (
        load_config(preset=name)
        for name in ("locomotion", "sparse-reward", "narrow-demonstrations")
    )

    assert (locomotion.expectile, locomotion.inverse_temperature) == (0.7, 3.0)
    assert locomotion.return_span == 1000.0
    assert (sparse.expectile, sparse.inverse_temperature, sparse.reward_shift) == (0.9, 10.0, -1.0)
    assert (narrow.expectile, narrow.inverse_temperature, narrow.dropout) == (0.7, 0.5, 0.1)


def test_a_file_goes_over_a_preset_and_keys_go_over_both(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("inverse_temperature: 5\nexpectile: 0.8\n")

    config = load_config(path, ["expectile=0.85"], "sparse-reward")

    assert (config.inverse_temperature, config.expectile) == (5.0, 0.85)
    assert config.reward_shift == -1.0


def test_a_preset_is_a_flag_of_train(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    small = ["--set", "hidden=[8]", "--set", "expectile=0.6", "--steps", "1"]
    command = ["train", str(dataset), "--out", str(tmp_path / "run"), *small]

    result = CliRunner().invoke(app, [*command, "--preset", "narrow-demonstrations"])

    config = load_config(tmp_path / "run" / "config.yaml")
    assert result.exit_code == 0, result.output
    assert (config.dropout, config.inverse_temperature, config.expectile) == (0.1, 0.5, 0.6)


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    known = ", ".join(PRESETS)

    with pytest.raises(ConfigError, match=rf"preset 'antmaze' is not known: one of {known}"):
        load_config(preset="antmaze")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["expectile_schedule=annealed", "expectile_start=0.9"],
            r"expectile_start 0\.9 is above expectile 0\.7.*lower expectile_start",
        ),
        (
            ["expectile_schedule=policy_value", "held_out_fraction=0"],
            r"'policy_value' looks at held-out losses.*hold out some, or use 'annealed'",
        ),
        (
            ["algorithm=cql", "dropout=0.1"],
            r"actor 'gaussian' and dropout 0\.1 are not for .*'cql'",
        ),
        (["algorithm=cql", "actor=unsquashed"], r"actor 'unsquashed' .*leave actor at 'gaussian'"),
        (["dropout=1"], r"dropout = 1: .*less than 1"),
        (["best_fraction=0"], r"best_fraction = 0: .*greater than 0"),
        (["algorithm=sac"], r"algorithm = 'sac': .*'iql', 'bc' or 'cql'"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_every_key_that_is_not_plain_says_what_it_is() -> None:
    plain = {"seed", "steps", "batch_size", "reward_shift", "normalise_observations"}

    undescribed = {
        name for name, field in TrainConfig.model_fields.items() if field.description is None
    }

    assert undescribed <= plain


def test_every_key_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()

    assert [name for name in TrainConfig.model_fields if f"`{name}`" not in page] == []
