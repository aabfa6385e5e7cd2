"""Rows that lie in a temporary file read as if they lay in memory, without taking any."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from iql_ros.errors import LogError
from training.conversion.row_file import PICKED, RowFile


def stored(rows: np.ndarray, pieces: int = 3) -> np.ndarray:
    file = RowFile(rows.shape[1])
    for piece in np.array_split(rows, pieces):
        file.add(piece)
    return file.rows()


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_rows_are_those_that_were_added_to_the_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 3))
    rows[7] = [np.nan, np.inf, -0.0]
    assert np.asarray(stored(rows)).tobytes() == rows.tobytes()


@pytest.mark.parametrize("dtype", [np.int64, np.intp, np.int32])
def test_rows_picked_in_any_order_are_as_of_an_array(dtype: type) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 3))
    numbers = rng.integers(-5000, 5000, 3 * PICKED + 1).astype(dtype)
    assert np.array_equal(stored(rows)[numbers], rows[numbers])


def test_other_keys_are_as_of_an_array() -> None:
    rows = np.arange(12.0).reshape(4, 3)
    file_rows = stored(rows)
    keep = np.array([True, False, True, False])
    assert np.array_equal(file_rows[keep], rows[keep])
    assert np.array_equal(file_rows[1:, -2:], rows[1:, -2:])
    assert file_rows[2, 1] == rows[2, 1]
    assert np.array_equal(np.isfinite(file_rows), np.isfinite(rows))


def test_columns_that_are_no_neighbours_in_memory_are_stored_as_they_read() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(stored(rows[:, :-2]), rows[:, :-2])


@pytest.mark.parametrize("shape", [(0, 3), (5, 0)])
def test_no_values_need_no_file(shape: tuple[int, int]) -> None:
    assert stored(np.zeros(shape)).shape == shape


def test_rows_can_not_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        stored(np.zeros((4, 2)))[0, 0] = 1.0


def test_picked_rows_leave_the_others_out_of_memory() -> None:
    file = RowFile(16)
    block = np.random.default_rng(0).normal(size=(8192, 16))
    for _ in range(64):  # 64 MB
        file.add(block)
    before = resident_mb()
    rows = file.rows()
    picked = rows[np.arange(0, len(rows), 25)]  # of every page
    assert np.array_equal(picked[:100], block[:2500:25])
    assert resident_mb() - before < 16


def test_full_or_missing_disk_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(LogError, match=r"did not fit into .*gone: set TMPDIR to a larger disk"):
        RowFile(1).add(np.zeros((1, 1)))
