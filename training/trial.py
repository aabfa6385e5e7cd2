"""One trial of a sweep: a training and its score, a pure function of a `Task`.

A cluster can run it itself: `python -m training.trial FOLDER`, with the task in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from training.datasets.dataset import load_dataset
from training.evaluation.bootstrap import Interval, bootstrap_mean
from training.evaluation.fqe import FqeSettings, fit_q
from training.evaluation.judged import policy_transitions
from training.evaluation.values import policy_values
from training.learning.checkpoint import RunError
from training.learning.config import TrainConfig
from training.learning.run import CHECKPOINT
from training.learning.train import train
from training.report.numbers import plain

ATTACHED = "--attached"
"""Says that somebody holds the other end of stdin, and waits."""
TASK, RESULT, RUN = "task.json", "result.json", "run"
STOPPED = 130
LONGEST_NAME = 120


@dataclass(frozen=True)
class Task:
    """All that decides a trial's result.

    Attributes:
        changes: what sets this trial apart, by key, as the user wrote it.
        config: of the training.
        dataset, dataset_digest: what it is trained and scored on.
        discount: gamma of the score, the same for all trials.
        fit_steps: updates of the score's fit.
    """

    changes: dict[str, str]
    config: TrainConfig
    dataset: str
    dataset_digest: str
    discount: float
    fit_steps: int

    @property
    def name(self) -> str:
        """Of its folder: the changes, and the beginning of a hash of the config."""
        digest = hashlib.sha256(self.config.model_dump_json().encode()).hexdigest()[:8]
        told = ",".join(f"{key}={value}" for key, value in self.changes.items())
        return re.sub(r"[^\w.=,+-]", "_", told)[:LONGEST_NAME] + f"-{digest}"

    def as_json(self) -> dict[str, Any]:
        """The content of `task.json`."""
        return {**vars(self), "config": self.config.model_dump(mode="json")}

    @classmethod
    def read(cls, folder: Path) -> Task:
        """The task of a trial's folder."""
        content = json.loads((folder / TASK).read_text())
        return cls(**{**content, "config": TrainConfig.model_validate(content["config"])})


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial that was trained to its end.

    Attributes:
        score: FQE of its policy at the first steps of all episodes, with its interval.
        held_out: its newest held-out losses.
        seconds: what the last process took for it.
    """

    score: Interval
    held_out: dict[str, float]
    seconds: float


def run_trial(task: Task, folder: Path) -> TrialResult:
    """Trains in `folder`, from the checkpoint that is there if there is one, and scores.

    Raises:
        KeyboardInterrupt: it was interrupted, its checkpoint saved.
        IqlRosError: the training failed.
    """
    started = time.monotonic()
    run_folder, data_path = folder / RUN, Path(task.dataset)
    begun = (run_folder / CHECKPOINT).exists()
    run = train(data_path, run_folder, task.config, resume=begun, force=not begun)
    if not run.finished:
        raise KeyboardInterrupt
    data = load_dataset(data_path)
    if data.digest != task.dataset_digest:
        raise RunError(f"{data_path} has changed since the sweep began: sweep into another folder")
    settings = FqeSettings(steps=task.fit_steps)
    q = fit_q(policy_transitions(run, data), task.discount, settings)
    score = bootstrap_mean(policy_values(q, run, data))
    return TrialResult(score, run.metrics, round(time.monotonic() - started, 1))


def read_result(folder: Path, task: Task) -> TrialResult | None:
    """The result that lies in a trial's folder, if it is that of this very task."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / RESULT).read_text())
        if content.pop("task") == json.loads(json.dumps(task.as_json())):
            return TrialResult(**{**content, "score": Interval(**content["score"])})
    return None


def main(folder: Path) -> int:
    """Runs the task of a trial's folder and leaves its result there; returns the exit code."""
    task = Task.read(folder)
    try:
        result = run_trial(task, folder)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except IqlRosError as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        return 1
    content = plain({"task": task.as_json(), **asdict(result)})
    write_text(folder / RESULT, json.dumps(content, indent=1) + "\n")
    return 0


def _stop_with_parent() -> None:
    """Interrupts this process, which saves its checkpoint, when the sweep has died."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: sys.stdin's lock would abort the exit
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    if sys.argv[2:] == [ATTACHED]:
        Thread(target=_stop_with_parent, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
