"""One training for every combination of settings, each scored by fitted Q evaluation.

A trial runs in a process of its own, and only files in its folder tell how far it came. So a
sweep that was interrupted goes on, and a trial that dies takes no other with it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TypeAlias

from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from training.datasets.dataset import load_dataset
from training.evaluation.fqe import FqeSettings
from training.learning.config import load_config
from training.trial import ATTACHED, RESULT, TASK, Task, TrialResult, read_result

LOG = "log.txt"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class SweepError(IqlRosError):
    """A sweep was asked for in a way that makes no sense."""


@dataclass(frozen=True)
class Failed:
    """A trial without a result, and why."""

    reason: str


Outcome: TypeAlias = TrialResult | Failed


def tasks_of(
    dataset: Path,
    sets: Sequence[str],
    *,
    config: Path | None = None,
    preset: str | None = None,
    fit_steps: int = FqeSettings.steps,
) -> list[Task]:
    """The product of all choices.

    Args:
        dataset: HDF5 file.
        sets: `key=v1,v2,...` each; commas within brackets do not separate.
        config, preset: what all trials share, see `load_config`.
        fit_steps: updates of each score's fit.

    Raises:
        SweepError: a key is given twice or without values.
        ConfigError: a value does not fit its key.
    """
    choices = dict(_choices(text) for text in sets)
    if len(choices) < len(sets):
        raise SweepError(f"a key is given twice in {', '.join(sets)}: put its values in one --set")
    changes = [dict(zip(choices, v, strict=True)) for v in itertools.product(*choices.values())]
    configs = [load_config(config, [f"{k}={v}" for k, v in c.items()], preset) for c in changes]
    digest = load_dataset(dataset).digest
    discount = max(config.discount for config in configs)
    # A key of one value tells no trial from another.
    varied = {key for key, values in choices.items() if len(values) > 1} or set(choices)
    return [
        Task(
            {key: value for key, value in change.items() if key in varied},
            one,
            str(dataset.resolve()),
            digest,
            discount,
            fit_steps,
        )
        for change, one in zip(changes, configs, strict=True)
    ]


def _choices(text: str) -> tuple[str, list[str]]:
    key, separator, values = text.partition("=")
    found = [v.strip() for v in re.split(r",(?![^\[]*\])", values)]
    if not separator or not all(found):
        raise SweepError(f"--set {text!r} must be key=value or key=v1,v2,...")
    return key.strip(), list(dict.fromkeys(found))


def sweep(
    tasks: Sequence[Task],
    out: Path,
    *,
    jobs: int,
    progress: Callable[[Task, Outcome], None] = lambda task, outcome: None,
) -> list[Outcome]:
    """Runs the trials that have no result yet, and returns all outcomes in the tasks' order.

    Args:
        tasks: see `tasks_of`.
        out: folder; each trial has its own below `out/trials`.
        jobs: processes at a time.
        progress: called in this thread for each trial that is over.

    Raises:
        KeyboardInterrupt: every running trial has saved its checkpoint.
    """
    folders = [out / "trials" / task.name for task in tasks]
    stop, running = Event(), set[subprocess.Popen[bytes]]()
    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(_outcome, task, folder, stop, running): i
            for i, (task, folder) in enumerate(zip(tasks, folders, strict=True))
        }
        try:
            for future in as_completed(futures):
                i = futures[future]
                outcomes[i] = future.result()
                progress(tasks[i], outcomes[i])
        except BaseException:
            stop.set()
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise
    return [outcomes[i] for i in range(len(tasks))]


def _outcome(
    task: Task, folder: Path, stop: Event, running: set[subprocess.Popen[bytes]]
) -> Outcome:
    """Runs one trial as a process, unless it has its result already."""
    known = read_result(folder, task)
    if known is not None or stop.is_set():
        return known or Failed("not begun")
    (folder / RESULT).unlink(missing_ok=True)
    write_text(folder / TASK, json.dumps(task.as_json(), indent=1) + "\n")
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "training.trial", str(folder), ATTACHED],
            stdin=subprocess.PIPE,  # its end tells the trial that nobody waits for it any more
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent, which passes it on once
        )
        running.add(process)
        if stop.is_set():
            process.send_signal(signal.SIGINT)
        code = process.wait()
        running.discard(process)
        assert process.stdin is not None
        process.stdin.close()
    result = read_result(folder, task)
    if result is not None:
        return result
    if code == -signal.SIGKILL:
        return Failed("its process was killed: was the memory full? fewer --jobs take less")
    lines = (folder / LOG).read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return Failed(lines[-1])
