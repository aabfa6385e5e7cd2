"""Where a run's numbers go: `metrics.jsonl`, TensorBoard, and the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from iql_ros.files import write_text

QUIET_INTERVAL_S = 10.0

# Called after every block: step, losses by name, updates per second.
Report = Callable[[int, Mapping[str, float], float], None]


class MetricsLog:
    """The metrics of one run; a resumed run goes on right after its checkpoint.

    A line of `metrics.jsonl` is `{"step": ..., "train/value_loss": ..., ...}`. It holds no
    time of day and no rate, so that equal runs write equal files.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(map(_line, kept)))
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends values that hold after `step` updates."""
        self._file.write(_line({"step": step, **values}))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def write_rate(self, step: int, updates_per_s: float) -> None:
        """Records the speed, in TensorBoard only."""
        self._board.add_scalar("speed/updates_per_s", updates_per_s, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a `metrics.jsonl`; none if there is no file."""
    if not path.exists():
        return []
    # The last line of a killed run may be cut in the middle.
    whole = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in whole if line.endswith("\n")]


@contextmanager
def terminal_report(start: int, steps: int) -> Iterator[Report]:
    """Yields a report that draws a progress bar, or without a terminal a line every 10 s."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_report(steps)
        return
    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")]
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=steps, completed=start)

        def report(step: int, losses: Mapping[str, float], updates_per_s: float) -> None:
            progress.update(task, completed=step, description=_summary(losses, updates_per_s))

        yield report


def _line_report(steps: int) -> Report:
    last = time.monotonic()

    def report(step: int, losses: Mapping[str, float], updates_per_s: float) -> None:
        nonlocal last
        if step == steps or time.monotonic() - last >= QUIET_INTERVAL_S:
            last = time.monotonic()
            print(f"{step}/{steps}  {_summary(losses, updates_per_s)}", file=sys.stderr, flush=True)

    return report


def _summary(losses: Mapping[str, float], updates_per_s: float) -> str:
    shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return f"{shown}  {updates_per_s:.0f} updates/s"


def _line(values: Mapping[str, float]) -> str:
    return json.dumps(values) + "\n"
