"""Evaluate, compare and sweep, with the verbs a user types, on a small dataset."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from iql_ros.cli import app
from iql_ros.errors import IqlRosError
from tests.small_dataset import point_columns, point_contract, write_point_dataset
from training.evaluation.bootstrap import Interval
from training.evaluation.judged import policy_actions
from training.learning.checkpoint import load_checkpoint
from training.learning.config import TrainConfig, dump_config
from training.learning.run import load_run
from training.learning.train import train
from training.sweep import Failed, SweepError, tasks_of
from training.sweep_page import render_sweep, sweep_facts
from training.trial import TrialResult, read_result

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(
    steps=200,
    hidden=(32, 32),
    batch_size=32,
    learning_rate=3e-3,
    discount=0.8,
    held_out_fraction=0.3,
    log_every=10,
    evaluate_every=20,
    checkpoint_every=100,
)
BRIEF = ("--fit-steps", "150")


def quiet(step: int, losses: object, updates_per_s: float) -> None:
    """A report that shows nothing."""


def iql_ros(*arguments: object) -> Result:
    """Runs a verb in this process; errors that a user can mend are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset; runs of IQL, of BC and of IQL with another split; and one that hardly began."""
    folder = tmp_path_factory.mktemp("judging")
    dataset = write_point_dataset(folder / "data.h5", point_columns(episodes=24))
    changes: dict[str, dict[str, object]] = {
        "iql": {},
        "bc": {"algorithm": "bc"},
        "other_split": {"seed": 1},
        "raw": {"steps": 10, "learning_rate": 1e-9},
        "deterministic": {"actor": "deterministic", "held_out_fraction": 0},
    }
    for name, change in changes.items():
        train(dataset, folder / name, CONFIG.model_copy(update=change), progress=quiet)
    return folder


@pytest.fixture(scope="module")
def judged(folder: Path) -> tuple[Result, dict]:
    result = iql_ros("evaluate", folder / "iql", "--fit-steps", 800)
    return result, json.loads((folder / "iql" / "evaluation.json").read_text())


# -- evaluate ----------------------------------------------------------------------------


def test_an_evaluation_leaves_a_page_and_the_same_facts_as_json(
    folder: Path, judged: tuple[Result, dict]
) -> None:
    result, facts = judged
    assert (result.exit_code, facts["verdict"], facts["reasons"]) == (0, "no objection", [])
    assert "cannot show that it is safe or good" in result.output
    assert facts["judged_on"] == "the 7 that the run held out"
    value = facts["value"]
    assert value["policy"]["low"] < value["policy"]["mean"] < value["policy"]["high"]
    assert facts["actions"]["to_recorded"] < 0.1  # it imitates well
    assert set(facts["actions"]["components"]) == set(point_contract().action_names)
    assert set(facts["calibration"]) == {"V", "Q"}
    page = (folder / "iql" / "evaluation.html").read_text()
    for text in ("No objection", "cannot show that it is safe", "doubly robust", "<polyline"):
        assert text in page
    assert "src=" not in page
    assert "href=" not in page


def test_fqe_of_the_recorded_behaviour_is_near_its_returns(judged: tuple[Result, dict]) -> None:
    value = judged[1]["value"]
    # 25 steps at 0.8: what the estimator sees beyond an episode's end weighs 0.4 %.
    assert value["cut_off"] == pytest.approx(0.8**25)
    assert abs(value["estimator_error"]["mean"]) < 0.2 * abs(value["recorded_return"]["mean"])


def test_an_untrained_policy_is_vetoed_with_reasons_and_exit_code_3(folder: Path) -> None:
    result = iql_ros("evaluate", folder / "raw", "--out", folder / "raw.html", *BRIEF)
    facts = json.loads((folder / "raw.json").read_text())
    assert result.exit_code == 3
    assert facts["verdict"] == "veto"
    assert facts["reasons"]
    assert "veto: " in result.output
    assert "<h2>Veto</h2>" in (folder / "raw.html").read_text()


def test_without_density_values_or_held_out_episodes_the_report_says_so(folder: Path) -> None:
    iql_ros("evaluate", folder / "deterministic", *BRIEF)
    facts = json.loads((folder / "deterministic" / "evaluation.json").read_text())
    assert facts["value"]["doubly_robust"] is None
    assert "deterministic: it has no density" in facts["value"]["doubly_robust_missing"]
    assert any("judged on what it was trained on" in remark for remark in facts["remarks"])
    iql_ros("evaluate", folder / "bc", *BRIEF)
    facts = json.loads((folder / "bc" / "evaluation.json").read_text())
    assert facts["calibration"] == {}
    assert "learns none" in (folder / "bc" / "evaluation.html").read_text()


def test_a_run_is_judged_on_logs_recorded_since(folder: Path) -> None:
    columns = point_columns(episodes=6, seed=5)
    columns["observations"][:, 2] = 3.0  # a component that never varied in training
    later = write_point_dataset(folder / "later.h5", columns)
    iql_ros("evaluate", folder / "iql", later, "--out", folder / "later.html", *BRIEF)
    facts = json.loads((folder / "later.json").read_text())
    assert facts["judged_on"] == f"all 6 of {later}"
    assert facts["outside"]["states"] == 1.0


def test_what_does_not_fit_is_refused_by_its_first_difference(folder: Path) -> None:
    wider = write_point_dataset(folder / "wider.h5", contract=point_contract(limit=0.6))
    with pytest.raises(IqlRosError, match=r"iql cannot be judged on .*wider\.h5.* -0\.5 against"):
        iql_ros("evaluate", folder / "iql", wider, *BRIEF)
    (folder / "raw.html").touch()
    with pytest.raises(IqlRosError, match=r"raw\.html exists: choose another name or pass --fo"):
        iql_ros("evaluate", folder / "iql", "--out", folder / "raw.html", *BRIEF)
    with pytest.raises(IqlRosError, match=r"page\.pdf must end in \.html"):
        iql_ros("evaluate", folder / "iql", "--out", folder / "page.pdf", *BRIEF)


def test_a_policy_whose_weights_are_damaged_is_refused(folder: Path) -> None:
    run = load_run(folder / "bc")
    for weights in run.policy.parameters():
        torch.nn.init.constant_(weights, torch.nan)
    with pytest.raises(IqlRosError, match=r"bc: .* not finite for 5 of 5 recorded observations"):
        policy_actions(run, np.zeros((5, 3), np.float32))


# -- compare -----------------------------------------------------------------------------


def test_runs_are_ranked_with_paired_intervals(folder: Path) -> None:
    page = folder / "comparison.html"
    names = ("raw", "iql", "bc")
    result = iql_ros("compare", *(folder / name for name in names), "--out", page, *BRIEF)
    facts = json.loads(page.with_suffix(".json").read_text())
    assert result.exit_code == 0
    best, *others = facts["runs"]
    (raw,) = (row for row in facts["runs"] if row["run"].endswith("raw"))
    assert "outside the data's support" in raw["objections"][0]
    assert best["to_best"] == {"mean": 0, "low": 0, "high": 0}
    assert all(row["to_best"]["mean"] <= 0 for row in others)
    assert facts["judged_on"] == "the 7 that the run held out"
    assert "less the behaviour" in page.read_text()


def test_runs_with_other_splits_are_compared_on_all_episodes(folder: Path) -> None:
    page = folder / "splits.html"
    iql_ros("compare", folder / "iql", folder / "other_split", "--out", page, *BRIEF)
    facts = json.loads(page.with_suffix(".json").read_text())
    assert facts["episodes"] == 24
    assert "the runs hold out different ones" in facts["judged_on"]


def test_runs_on_other_data_are_not_compared(folder: Path) -> None:
    for name, columns, contract in (
        ("other", point_columns(seed=3), point_contract()),
        ("wide", point_columns(), point_contract(limit=0.6)),
    ):
        dataset = write_point_dataset(folder / f"{name}.h5", columns, contract)
        config = CONFIG.model_copy(update={"steps": 10})
        train(dataset, folder / f"on_{name}", config, progress=quiet)
    with pytest.raises(IqlRosError, match=r"differ in dataset: \w+… \(.*data\.h5\) against"):
        iql_ros("compare", folder / "iql", folder / "on_other")
    with pytest.raises(IqlRosError, match=r"differ in actions\[v\]\.limits.*-0\.5 against -0\.6"):
        iql_ros("compare", folder / "iql", folder / "on_wide")
    with pytest.raises(IqlRosError, match="1 run given, a comparison needs two or more"):
        iql_ros("compare", folder / "iql")


# -- sweep -------------------------------------------------------------------------------


def test_the_grid_is_the_product_of_the_choices(folder: Path) -> None:
    sets = ["expectile=0.7,0.9", "hidden=[8,8],[16]", "seed=0,1"]
    tasks = tasks_of(folder / "data.h5", sets)
    assert len(tasks) == len({task.name for task in tasks}) == 8
    assert tasks[2].config.hidden == (16,)
    assert tasks[2].name.startswith("expectile=0.7,hidden=_16_,seed=0-")
    # Scores must be of one discount: the longest view that any trial takes.
    assert {t.discount for t in tasks_of(folder / "data.h5", ["discount=0.9,0.95"])} == {0.95}


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["expectile"], r"--set 'expectile' must be key=value"),
        (["expectile=0.7,"], r"'expectile=0\.7,' must be key=value or key=v1,v2"),
        (["seed=1", "seed=2"], "a key is given twice in seed=1, seed=2"),
        (["expectile=0.7,2"], "expectile = 2: Input should be less than 1"),
        (["spam=1"], "known keys: algorithm"),
    ],
)
def test_choices_that_make_no_sense_are_refused(folder: Path, sets: list[str], words: str) -> None:
    with pytest.raises((SweepError, IqlRosError), match=words):
        tasks_of(folder / "data.h5", sets)


def test_settings_are_ranked_by_the_mean_of_their_seeds(folder: Path, tmp_path: Path) -> None:
    tasks = tasks_of(folder / "data.h5", ["expectile=0.7,0.9", "seed=0,1"])
    means = [1.0, 5.0, 4.0, 4.0]
    outcomes = [TrialResult(Interval(m, m - 1, m + 1), {"value": m}, 1.0) for m in means]
    facts = sweep_facts(tasks, [*outcomes[:3], Failed("out of memory")], tmp_path)
    assert [trial["score"]["mean"] for trial in facts["trials"]] == [5, 4, 1]
    first, second = facts["settings"]
    assert first == {"setting": "expectile=0.9", "seeds": 1, "mean": 4, "low": 4, "high": 4}
    assert second == {"setting": "expectile=0.7", "seeds": 2, "mean": 3, "low": 1, "high": 5}
    page = render_sweep(facts)
    assert "expectile=0.7 (2 seeds)" in page
    assert "out of memory" in page


def sweep_arguments(folder: Path, out: Path, *sets: str, steps: int = 40) -> list[object]:
    config = folder / "shared.yaml"
    config.write_text(dump_config(CONFIG.model_copy(update={"steps": steps})))
    return [
        *("sweep", folder / "data.h5", "--out", out, "--config", config, *BRIEF, "--jobs", 2),
        *(part for text in sets for part in ("--set", text)),
    ]


@pytest.mark.slow
def test_a_failing_trial_stops_no_other_and_finished_ones_are_not_repeated(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    arguments = sweep_arguments(folder, out, "reward_scale=1,1e30")
    result = iql_ros(*arguments)
    assert result.exit_code == 2
    facts = json.loads((out / "sweep.json").read_text())
    (trial,), (failed,) = facts["trials"], facts["failed"]
    assert trial["changes"] == {"reward_scale": "1"}
    assert trial["score"]["low"] < trial["score"]["mean"] < trial["score"]["high"]
    assert "DivergenceError: critic_loss is inf at step" in failed["reason"]
    assert "reward_scale=1e30" in (out / "sweep.html").read_text()

    finished = Path(trial["run"]).with_name("result.json")
    before = finished.stat().st_mtime_ns
    iql_ros(*arguments)
    assert finished.stat().st_mtime_ns == before
    (folder_of_failed,) = (out / "trials").glob("reward_scale=1e30-*")
    assert not (folder_of_failed / "result.json").exists()


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_from_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    out, steps = tmp_path / "sweep", 1_500
    arguments = [str(a) for a in sweep_arguments(folder, out, "seed=3", steps=steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "iql_ros.cli", *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(out.glob("trials/*/run/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command again goes on" in said
    (checkpoint,) = out.glob("trials/*/run/checkpoint.pt")
    stopped = load_checkpoint(checkpoint).step
    assert 0 < stopped < steps

    assert iql_ros(*arguments).exit_code == 0
    assert load_checkpoint(checkpoint).step == steps
    lines = checkpoint.with_name("metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line)["step"] for line in lines if "train/actor_loss" in line]
    np.testing.assert_array_equal(trained, np.arange(10, steps + 1, 10))


@pytest.mark.slow
def test_a_trial_runs_alone_from_its_task(folder: Path, tmp_path: Path) -> None:
    (task,) = tasks_of(folder / "data.h5", ["seed=0"], fit_steps=50)
    task = replace(task, config=CONFIG.model_copy(update={"steps": 20}))
    (tmp_path / "task.json").write_text(json.dumps(task.as_json()))
    command = [sys.executable, "-m", "training.trial", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, stdin=subprocess.DEVNULL)
    result = read_result(tmp_path, task)
    assert result is not None
    assert result.score.low < result.score.high
    assert read_result(tmp_path, replace(task, discount=0.5)) is None  # another task's
