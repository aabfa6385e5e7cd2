"""Several seeds trained at once: each comes out as if it had trained alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.small_dataset import write_point_dataset
from training.learning import session
from training.learning.checkpoint import (
    Checkpoint,
    RunError,
    load_checkpoint,
    save_checkpoint,
)
from training.learning.config import ConfigError, TrainConfig
from training.learning.metrics import read_metrics
from training.learning.run import load_run
from training.learning.together import train_together
from training.learning.train import train

EVERY = {"log_every": 10, "evaluate_every": 20, "checkpoint_every": 20}
CONFIG = TrainConfig(steps=60, hidden=(16,), batch_size=32, device="cpu", **EVERY)
SEEDS = 3, 4, 7


def quiet(*_: object) -> None:
    """Shows nothing."""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_point_dataset(tmp_path / "data.h5")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt").networks


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Sixty float32 updates whose sums were added in another order."""
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("data", ["memory", "disk"])
def test_each_seed_comes_out_as_if_alone(dataset: Path, tmp_path: Path, data: str) -> None:
    config = CONFIG.model_copy(update={"data": data})
    train_together(dataset, tmp_path / "all", config, SEEDS, progress=quiet)
    for seed in SEEDS:
        ours, alone = tmp_path / "all" / f"seed-{seed}", tmp_path / str(seed)
        train(dataset, alone, config.model_copy(update={"seed": seed}), progress=quiet)
        assert_close(weights(ours), weights(alone))
        lines = [read_metrics(folder / "metrics.jsonl") for folder in (ours, alone)]
        for one, other in zip(*lines, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
        assert sorted(path.name for path in ours.glob("*.pt")) == ["checkpoint.pt"]
        assert not (ours / "transitions.f32").exists()


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_run_killed_between_two_checkpoints_resumes_to_the_bit(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    train_together(dataset, tmp_path / "whole", CONFIG, SEEDS, progress=quiet)
    saved = 0

    def dying(path: Path, checkpoint: Checkpoint) -> None:
        nonlocal saved
        if checkpoint.step == 40:
            saved += 1
            if saved > ahead:  # so many seeds got as far as this checkpoint, the others did not
                raise SystemError("killed")
        save_checkpoint(path, checkpoint)

    monkeypatch.setattr(session, "save_checkpoint", dying)
    with pytest.raises(SystemError):
        train_together(dataset, tmp_path / "cut", CONFIG, SEEDS, progress=quiet)
    monkeypatch.undo()

    runs = train_together(dataset, tmp_path / "cut", CONFIG, SEEDS, resume=True, progress=quiet)

    assert all(run.finished for run in runs)
    for name in (f"seed-{seed}" for seed in SEEDS):
        ours, theirs = weights(tmp_path / "cut" / name), weights(tmp_path / "whole" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        metrics = [read_metrics(tmp_path / f / name / "metrics.jsonl") for f in ("cut", "whole")]
        assert metrics[0] == metrics[1]


def test_one_of_them_goes_on_alone(dataset: Path, tmp_path: Path) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(dataset, tmp_path / "all", CONFIG, SEEDS, progress=stop)
    alone = CONFIG.model_copy(update={"seed": 4})
    train(dataset, tmp_path / "all" / "seed-4", alone, resume=True, progress=quiet)
    train(dataset, tmp_path / "alone", alone, progress=quiet)
    assert_close(weights(tmp_path / "all" / "seed-4"), weights(tmp_path / "alone"))

    with pytest.raises(RunError, match=r"no step in common \(seed-3 \[0, 20\], seed-4 \[60\]"):
        train_together(dataset, tmp_path / "all", CONFIG, SEEDS, resume=True, progress=quiet)


def test_its_checkpoint_holds_no_other_seed(dataset: Path, tmp_path: Path) -> None:
    train_together(dataset, tmp_path / "all", CONFIG, SEEDS, progress=quiet)
    train(dataset, tmp_path / "alone", CONFIG, progress=quiet)
    of_all, alone = (
        (tmp_path / name / "checkpoint.pt").stat().st_size for name in ("all/seed-3", "alone")
    )
    assert of_all < 1.2 * alone  # three seeds in one file would be three times as much
    assert load_run(tmp_path / "all" / "seed-3").config.seed == 3


@pytest.mark.parametrize(
    ("changes", "seeds", "said"),
    [
        ({}, (1, 1), r"seeds \[1, 1\] must be two or more, all different"),
        ({}, (1,), r"seeds \[1\] must be two or more"),
        ({"dropout": 0.1}, SEEDS, "fast update, which does not do dropout 0.1"),
        ({"algorithm": "bc"}, SEEDS, "which does not do algorithm bc"),
        ({"expectile_schedule": "value_error"}, SEEDS, "share one tau"),
    ],
)
def test_what_cannot_train_together_is_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, object], seeds: tuple[int, ...], said: str
) -> None:
    config = CONFIG.model_copy(update=changes)
    with pytest.raises(ConfigError, match=said):
        train_together(dataset, tmp_path / "all", config, seeds, progress=quiet)
    assert not (tmp_path / "all").exists()
