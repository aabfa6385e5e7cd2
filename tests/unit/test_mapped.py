from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.small_dataset import write_point_dataset
from training.datasets import mapped
from training.datasets.dataset import load_dataset
from training.datasets.file import COLUMNS
from training.datasets.mapped import read_column, take_rows
from training.datasets.scaling import Normaliser


def test_a_mapped_dataset_is_the_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_point_dataset(tmp_path / "data.h5")
    plain = load_dataset(path)
    some = np.array([1, 3, 8])
    normaliser = Normaliser.fit(plain.observations)
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 0)
    monkeypatch.setattr(mapped, "PART_ROWS", 7)

    large = load_dataset(path)

    assert isinstance(large.observations, np.memmap)
    assert large.digest == plain.digest
    assert large.findings == plain.findings
    taken = large.take(some)
    assert isinstance(taken.next_observations, np.memmap)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(taken, name), getattr(plain.take(some), name))
    np.testing.assert_allclose(
        Normaliser.fit(large.observations).std, normaliser.std, rtol=1e-6, atol=0
    )
    assert [file.name for file in tmp_path.iterdir()] == ["data.h5"]


def test_a_compressed_column_is_read_and_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 0)
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("plain", data=values)
        file.create_dataset("packed", data=values, compression="gzip")

    with h5py.File(tmp_path / "data.h5") as file:
        plain, packed = (read_column(file[n], tmp_path / "data.h5") for n in ("plain", "packed"))

    assert isinstance(plain, np.memmap)
    assert not isinstance(packed, np.memmap)
    np.testing.assert_array_equal(plain, packed)
    np.testing.assert_array_equal(take_rows(plain, np.array([2, 2, 0])), values[[2, 2, 0]])
