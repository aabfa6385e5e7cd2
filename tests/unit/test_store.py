from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_dataset import write_point_dataset
from training.datasets.dataset import load_dataset
from training.datasets.scaling import Normaliser
from training.learning import store as store_module
from training.learning.batch import pack, pack_in_parts, packed_width
from training.learning.config import TrainConfig
from training.learning.learner import draw_block
from training.learning.run import load_run
from training.learning.store import (
    TRANSITIONS,
    Store,
    lies_on_disk,
    open_shuffled,
    write_shuffled,
)
from training.learning.train import train

CONFIG = TrainConfig(
    steps=60,
    hidden=(16, 16),
    batch_size=4,
    log_every=10,
    evaluate_every=20,
    checkpoint_every=20,
    data="disk",
)


class Killed(Exception):
    """Ends a run with no chance to tidy up."""


def quiet(step: int, losses: object, updates_per_s: float) -> None:
    """A report that shows nothing."""


def killed_at_30(step: int, losses: object, updates_per_s: float) -> None:
    if step == 30:
        raise Killed


def numbered(rows: int) -> torch.Tensor:
    return torch.arange(rows, dtype=torch.float32)[:, None].repeat(1, 3)


def test_a_shuffled_file_holds_every_transition_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUCKET_BYTES", 2000)  # so that there are several buckets
    path = tmp_path / "data.f32"

    write_shuffled(path, numbered(1000).split(300), 1000, 3, seed=0)
    store = open_shuffled(path, 1000, 3)

    assert store.data[:, 0].sort()[0].tolist() == [*range(1000)]
    assert torch.equal(store.data[:, 0], store.data[:, 2])
    assert [file.name for file in tmp_path.iterdir()] == ["data.f32"]
    # Neighbours in the data are far apart in the file: |i - j| of random pairs averages N / 3.
    assert store.data[:, 0].diff().abs().mean() == pytest.approx(1000 / 3, rel=0.1)


def test_a_block_from_disk_draws_from_one_stretch_and_all_rows_have_their_turn() -> None:
    store = Store(numbered(1000), shuffled=True)
    seen = torch.zeros(1000)

    for block in range(400):
        data, rows = store.draw(CONFIG, block)
        stretch = data[:, 0].long()
        assert data.shape == (80, 3)  # twice 10 x 4
        assert rows.shape == (10, 4)
        assert torch.equal((stretch - stretch[0]) % 1000, torch.arange(80))
        seen[stretch[rows.flatten()]] += 1

    # 16 draws of each row on average; a row never drawn would have odds of e^-16.
    assert seen.min() >= 1
    again = store.draw(CONFIG, 7)
    assert all(map(torch.equal, again, store.draw(CONFIG, 7)))


def test_a_store_in_memory_draws_from_all_rows() -> None:
    data, rows = Store(numbered(1000)).draw(CONFIG, 3)

    assert len(data) == 1000
    assert torch.equal(rows, draw_block(CONFIG, 3, 1000))


def test_auto_goes_to_disk_beyond_a_quarter_of_the_machine_s_memory() -> None:
    auto = CONFIG.model_copy(update={"data": "auto"})

    assert not lies_on_disk(auto, 1_000_000, 27)
    assert lies_on_disk(auto, 10**12, 27)
    assert not lies_on_disk(CONFIG.model_copy(update={"data": "memory"}), 10**12, 27)


def test_packing_in_parts_is_packing(tmp_path: Path) -> None:
    dataset = load_dataset(write_point_dataset(tmp_path / "data.h5"))
    normaliser = Normaliser.fit(dataset.observations)

    parts = [*pack_in_parts(dataset, normaliser, CONFIG, rows=77)]

    assert len(parts) == 4
    assert torch.equal(torch.cat(parts), pack(dataset, normaliser, CONFIG))
    assert parts[0].shape == (77, packed_width(dataset))


def test_a_run_from_disk_resumes_exactly_and_leaves_no_transitions_behind(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    train(dataset, tmp_path / "whole", CONFIG, progress=quiet)
    with pytest.raises(Killed):
        train(dataset, tmp_path / "killed", CONFIG, progress=killed_at_30)
    assert (tmp_path / "killed" / TRANSITIONS).exists()

    train(dataset, tmp_path / "killed", CONFIG, resume=True, progress=quiet)

    ours, theirs = (load_run(tmp_path / name).learner.state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("killed", "whole")]
    assert metrics[0] == metrics[1]
    assert not list(tmp_path.glob(f"*/{TRANSITIONS}*"))
    assert np.isfinite(load_run(tmp_path / "whole").metrics["value_loss"])
