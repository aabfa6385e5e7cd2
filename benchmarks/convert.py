"""Bag to finished HDF5 beside rosbags' decoding of the same topics, and beside the floor.

CPU seconds, a process for each run, the contestants in turn; the imports are not counted, for
nobody. The floor only reads and decompresses: every chunk of an MCAP file into the same
buffers, the wanted rows of a database; `checked` also compares the CRC of each chunk, as the
converter does so that no damage goes unsaid. `times_floor` is of files with an image topic.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._report import parse_arguments, progress, report
from benchmarks._robot_logs import STORAGES, write_log

ROOM_BYTES = 8 << 30
Runs = dict[str, list[dict[str, float]]]


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    seconds, rounds = (180, 1) if arguments.quick else (600, 5)
    film_s, film_rounds = (20, 1) if arguments.quick else (600, 3)
    with tempfile.TemporaryDirectory(prefix="iql_ros_benchmark_") as name:
        folder = Path(name)
        if not arguments.quick and shutil.disk_usage(folder).free < ROOM_BYTES:
            sys.exit(f"{folder}: the log with images needs 8 GB: set TMPDIR, or use --quick")
        plain = {
            storage: _runs(folder, storage, seconds, rounds, ("ours", "rosbags", "floor"))
            for storage in STORAGES
        }
        films = {
            storage: _runs(
                folder, storage, film_s, film_rounds, ("ours", "floor", "checked"), images=True
            )
            for storage in STORAGES
        }
        short = _runs(folder, STORAGES[0], film_s // 10, 1, ("ours",), images=True)
    peaks = {storage: max(run["rss_mb"] for run in films[storage]["ours"]) for storage in STORAGES}
    report(
        "convert",
        arguments.quick,
        {
            "speedup_over_rosbags": _ratios(plain, "rosbags", "ours"),
            "times_floor": _ratios(films, "ours", "floor"),
            "times_checked_floor": _ratios(films, "ours", "checked"),
            "times_floor_without_images": _ratios(plain, "ours", "floor"),
            "peak_rss_mb": max(peaks.values()),
            "peak_rss_mb_of_a_tenth": short["ours"][0]["rss_mb"],
            "messages": seconds * 850,
            "cpu_s": {storage: _medians(runs) for storage, runs in plain.items()},
            "cpu_s_with_images": {storage: _medians(runs) for storage, runs in films.items()},
            "start_s": _median(plain[STORAGES[0]]["ours"], "start_s"),
        },
    )


def _runs(
    folder: Path,
    storage: str,
    seconds: int,
    rounds: int,
    contestants: tuple[str, ...],
    *,
    images: bool = False,
) -> Runs:
    """What the contestants needed for one log, which is deleted afterwards."""
    progress(f"{storage}: writing {seconds} s{' with images' if images else ''}")
    runs: Runs = {name: [] for name in contestants}
    with _log(folder, storage, seconds, images=images) as log:
        for number in range(rounds):
            for name in contestants:
                runs[name].append(_run(name, log, folder / f"{number}.h5"))
            text = ", ".join(f"{name} {runs[name][-1]['cpu_s']:.2f} s" for name in contestants)
            progress(f"{storage}: {text}, {runs['ours'][-1]['rss_mb']:.0f} MB")
    return runs


@contextmanager
def _log(folder: Path, storage: str, seconds: int, *, images: bool) -> Iterator[Path]:
    path = folder / ("bag" if storage == "sqlite3" else "bag.mcap")
    write_log(path, storage, seconds, images=images)
    try:
        yield path
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _run(name: str, log: Path, out: Path) -> dict[str, float]:
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._convert_contestant", name, str(log), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _ratios(runs: dict[str, Runs], above: str, below: str) -> dict[str, float]:
    """Median over the rounds of one contestant's CPU seconds through another's."""
    return {
        storage: statistics.median(
            over["cpu_s"] / under["cpu_s"]
            for over, under in zip(each[above], each[below], strict=True)
        )
        for storage, each in runs.items()
    }


def _medians(runs: Runs) -> dict[str, float]:
    return {name: _median(figures, "cpu_s") for name, figures in runs.items()}


def _median(figures: list[dict[str, float]], key: str) -> float:
    return statistics.median(each[key] for each in figures)


if __name__ == "__main__":
    main()
