from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_dataset import point_columns, point_contract, write_point_dataset
from training.datasets.dataset import load_dataset
from training.learning.checkpoint import RunError
from training.learning.config import ConfigError, TrainConfig, dump_config, load_config
from training.learning.metrics import read_metrics
from training.learning.preparing import split_run
from training.learning.train import DivergenceError, load_run, train

CONFIG = TrainConfig(
    steps=60,
    hidden=(16, 16),
    batch_size=32,
    log_every=10,
    evaluate_every=20,
    checkpoint_every=20,
)


def quiet(step: int, losses: object, updates_per_s: float) -> None:
    """A report that shows nothing."""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_point_dataset(tmp_path / "data.h5")


class Killed(Exception):
    """Ends a run with no chance to tidy up, as kill -9 would."""


def killed_at(at: int):
    def report(step: int, losses: object, updates_per_s: float) -> None:
        if step == at:
            raise Killed

    return report


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_run(run_folder).learner.state_dict()


def assert_equal_runs(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


# -- a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["iql", "bc"])
def test_a_run_leaves_a_policy_metrics_and_its_config(
    tmp_path: Path, dataset: Path, algorithm: str
) -> None:
    config = CONFIG.model_copy(update={"algorithm": algorithm})
    run = train(dataset, tmp_path / "run", config, progress=quiet)

    assert run.finished
    assert run.contract == point_contract()
    assert load_config(tmp_path / "run" / "config.yaml") == config
    with torch.no_grad():
        action = run.policy(torch.zeros(5, 3))
    assert action.shape == (5, 2)
    assert action.abs().max() <= 0.5
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if "train/actor_loss" in line] == [*range(10, 61, 10)]
    assert [line["step"] for line in lines if "held_out/action_error" in line] == [20, 40, 60]
    assert run.metrics["actor_loss"] == lines[-1]["held_out/actor_loss"]
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_iql_learns_to_steer_the_point_to_the_origin(tmp_path: Path, dataset: Path) -> None:
    config = TrainConfig(
        steps=600, hidden=(32, 32), batch_size=64, learning_rate=3e-3, held_out_fraction=0.2
    )
    run = train(dataset, tmp_path / "run", config, progress=quiet)
    place = torch.tensor([[0.9, -0.7, 0.0], [-0.8, 0.1, 0.0]])

    with torch.no_grad():
        for _ in range(60):
            place[:, :2] += 0.1 * run.policy(place)

    assert place.abs().max() < 0.15


def test_findings_are_logged_and_kept_with_the_run(
    tmp_path: Path, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(dataset, tmp_path / "run", CONFIG, progress=quiet)

    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert summary["held_out_episodes"] == 1
    assert summary["findings"][0].startswith("observation 'p_z' is always 0 ")
    assert summary["findings"][0] in caplog.text


def test_the_held_out_episodes_of_a_run_can_be_found_again(tmp_path: Path, dataset: Path) -> None:
    first, again = (split_run(load_dataset(dataset), CONFIG) for _ in range(2))

    assert first[1] is not None
    assert again[1] is not None
    assert first[1].digest == again[1].digest


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not(tmp_path: Path, dataset: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = CONFIG.model_copy(update={"seed": seed})
        train(dataset, tmp_path / name, config, progress=quiet)

    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    other = weights(tmp_path / "c")
    assert not torch.equal(
        weights(tmp_path / "a")["value.layers.0.weight"], other["value.layers.0.weight"]
    )


def test_without_a_terminal_progress_is_a_few_lines(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataset, tmp_path / "run", CONFIG)

    lines = capsys.readouterr().err.splitlines()
    assert "60/60  value_loss" in lines[-1]
    assert "updates/s" in lines[-1]
    assert len(lines) < 5


# -- stopping and going on ---------------------------------------------------------------


@pytest.mark.parametrize("killed", [10, 20, 50])
def test_a_killed_run_that_is_resumed_equals_one_that_never_stopped(
    tmp_path: Path, dataset: Path, killed: int
) -> None:
    train(dataset, tmp_path / "whole", CONFIG, progress=quiet)
    with pytest.raises(Killed):
        train(dataset, tmp_path / "killed", CONFIG, progress=killed_at(killed))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7')  # a line cut in the middle

    train(dataset, tmp_path / "killed", CONFIG, resume=True, progress=quiet)

    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


def test_sigint_saves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(step: int, losses: object, updates_per_s: float) -> None:
        if step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    train(dataset, tmp_path / "whole", CONFIG, progress=quiet)
    stopped = train(dataset, tmp_path / "run", CONFIG, progress=interrupt)

    assert (stopped.step, stopped.finished) == (30, False)
    assert f"train {dataset} --out {tmp_path / 'run'} " in caplog.text
    assert "--resume" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler

    train(dataset, tmp_path / "run", CONFIG, resume=True, progress=quiet)
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, dataset: Path) -> None:
    train(dataset, tmp_path / "run", CONFIG, progress=quiet)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()

    assert train(dataset, tmp_path / "run", CONFIG, resume=True, progress=quiet).finished
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resuming_with_another_origin_names_the_first_difference(
    tmp_path: Path, dataset: Path
) -> None:
    run = tmp_path / "run"
    train(dataset, run, CONFIG, progress=quiet)
    other_rewards = {**point_columns(), "rewards": np.arange(300, dtype=np.float32)}
    rewarded = write_point_dataset(tmp_path / "rewarded.h5", other_rewards)
    wider = write_point_dataset(tmp_path / "wider.h5", contract=point_contract(limit=0.6))

    with pytest.raises(RunError, match=r"config key 'expectile': 0\.7 in the run, 0\.9 now"):
        train(dataset, run, CONFIG.model_copy(update={"expectile": 0.9}), resume=True)
    with pytest.raises(RunError, match=r"dataset column 'rewards': other values"):
        train(rewarded, run, CONFIG, resume=True)
    with pytest.raises(RunError, match=r"contract: actions\[v\]\.limits.*: -0\.5 against -0\.6"):
        train(wider, run, CONFIG, resume=True)


def test_a_folder_in_use_is_refused_and_force_replaces_only_a_run(
    tmp_path: Path, dataset: Path
) -> None:
    run, photos = tmp_path / "run", tmp_path / "photos"
    train(dataset, run, CONFIG, progress=quiet)
    photos.mkdir()
    (photos / "cat.jpg").touch()

    with pytest.raises(RunError, match=r"run is not empty: .*--resume, or --force"):
        train(dataset, run, CONFIG, progress=quiet)
    with pytest.raises(RunError, match=r"photos holds no config\.yaml, so it is no run"):
        train(dataset, photos, CONFIG, force=True, progress=quiet)
    assert (photos / "cat.jpg").exists()
    assert train(dataset, run, CONFIG, force=True, progress=quiet).finished


def test_a_damaged_or_missing_checkpoint_is_refused(tmp_path: Path, dataset: Path) -> None:
    train(dataset, tmp_path / "run", CONFIG, progress=quiet)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])

    with pytest.raises(RunError, match=r"checkpoint\.pt is damaged"):
        load_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"holds no checkpoint\.pt: is it the folder of a training"):
        load_run(tmp_path)


def test_divergence_stops_the_run_with_its_step_and_batch(tmp_path: Path) -> None:
    columns = point_columns()
    columns["rewards"][:] = np.linspace(1e30, 3e38, 300)  # squares overflow float32
    dataset = write_point_dataset(tmp_path / "data.h5", columns)

    with pytest.raises(DivergenceError, match=r"critic_loss is inf at step 0, .*diverged\.npz"):
        train(dataset, tmp_path / "run", CONFIG, progress=quiet)

    with np.load(tmp_path / "run" / "diverged.npz") as dump:
        assert dump["batch"].shape == (32, 3 + 2 + 3 + 2)
        assert dump["batch"][:, -2].min() >= 1e30


# -- config ------------------------------------------------------------------------------


def test_config_is_read_from_yaml_and_overridden_by_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("expectile: 0.9\nsteps: 10\n")

    config = load_config(path, ["steps=20", "learning_rate=1e-3", "hidden=[64, 64]"])

    assert (config.expectile, config.steps) == (0.9, 20)
    assert (config.learning_rate, config.hidden) == (1e-3, (64, 64))


def test_a_dumped_config_reads_back_equal(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(CONFIG))

    assert load_config(tmp_path / "config.yaml") == CONFIG


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["temperature=3"], r"temperature = 3: Extra inputs .*\nknown keys: algorithm, "),
        (["expectile=1.5"], r"expectile = 1\.5: .*less than 1"),
        (["expectile"], r"override 'expectile' has no '='"),
        (["evaluate_every=150"], r"evaluate_every 150 is not a multiple of log_every 100"),
        (["hidden=[8"], r"override 'hidden=\[8' is not YAML"),
    ],
)
def test_a_wrong_config_names_key_value_and_rule(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_a_config_file_that_is_missing_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list\.yaml holds list, must be a mapping"):
        load_config(tmp_path / "list.yaml")
