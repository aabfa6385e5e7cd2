"""Mutated logs: an error that says so, or rows; never a crash, a hang, or a wrong value unsaid.

IQL_ROS_FUZZ sets the number of mutations (300), IQL_ROS_FUZZ_SEED the first seed.
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import CompressionType, IndexType

from iql_ros.errors import LogError
from tests.small_logs import messages, rows_of, write_mcap, write_ros1, write_sqlite, write_zstd
from training.logs import open_log

MUTATIONS = int(os.environ.get("IQL_ROS_FUZZ", "300"))
FIRST_SEED = int(os.environ.get("IQL_ROS_FUZZ_SEED", "0"))
# A value that a length field is most likely to be mistaken at.
ABSURD = [0, 1, 2, 8, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


# name -> how to write it, whether its messages are protected by a checksum
SEEDS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "mcap_none": (lambda path: write_mcap(path, CompressionType.NONE), True),
    "mcap_lz4": (lambda path: write_mcap(path, CompressionType.LZ4), True),
    "mcap_zstd": (lambda path: write_mcap(path, CompressionType.ZSTD), True),
    "mcap_unindexed": (
        lambda path: write_mcap(
            path, CompressionType.ZSTD, index_types=IndexType.NONE, repeat_channels=False
        ),
        True,
    ),
    "mcap_unchunked": (
        lambda path: write_mcap(path, CompressionType.NONE, use_chunking=False),
        False,
    ),
    "mcap_file_zstd": (write_zstd, True),
    "sqlite3": (write_sqlite, False),
    "ros1_none": (lambda path: write_ros1(path, "none"), False),
    "ros1_bz2": (lambda path: write_ros1(path, "bz2"), False),
    "ros1_lz4": (lambda path: write_ros1(path, "lz4"), False),
}


def mutated(seed: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one to three wounds of the kinds that disks and killed recorders cause."""
    data = bytearray(seed)
    for _ in range(int(rng.integers(1, 4))):
        at, other = sorted(rng.integers(0, len(data), 2).tolist())
        length = int(rng.integers(1, 200))
        kind = int(rng.integers(0, 8))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            data[at : at + length] = rng.bytes(length)
        elif kind == 2:
            data[at : at + length] = bytes(length)
        elif kind == 3:
            del data[max(at, 16) :]
        elif kind == 4:
            data[at:at] = data[other : other + length]
        elif kind == 5:
            del data[at : at + length]
        elif kind == 6:
            data[at : at + length], data[other : other + length] = (
                data[other : other + length],
                data[at : at + length],
            )
        else:
            width = int(rng.choice([4, 8]))
            value = int(rng.choice(ABSURD)) if rng.random() < 0.7 else int(rng.integers(1 << 32))
            data[at : at + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]
    return bytes(data)


@pytest.mark.parametrize("name", SEEDS)
def test_unmutated_seed_reads_as_written(name: str, tmp_path: Path) -> None:
    SEEDS[name][0](tmp_path / "seed")
    log = open_log(tmp_path / "seed")
    assert sorted(rows_of(log)) == sorted(messages())
    assert log.findings == []


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_log_gives_true_rows_or_says_why_not(name: str, tmp_path: Path) -> None:
    write, is_protected = SEEDS[name]
    write(tmp_path / "seed")
    seed = (tmp_path / "seed").read_bytes()
    written = set(messages())
    path = tmp_path / "mutated"
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(FIRST_SEED, FIRST_SEED + -(-MUTATIONS // len(SEEDS))):
        data = mutated(seed, np.random.default_rng([number, len(name)]))
        path.write_bytes(data)
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                log = open_log(path)
                rows = rows_of(log)
            except LogError as error:
                assert str(path) in str(error), f"seed {number}"  # noqa: PT017
                continue
        assert time.monotonic() - started < 5, f"seed {number}"
        if is_protected:
            assert log.findings or set(rows) == written, f"seed {number}"
        elif name in ("mcap_unchunked", "ros1_none"):
            assert all(payload in data for _, _, payload in rows), f"seed {number}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - peak_before < 100_000, "more than 100 MB for a file of 20 kB"
