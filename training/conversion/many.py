"""Many logs on all cores, one process each at a time, and none of them can end the others.

A worker is a plain child process that takes paths from one pipe and answers into another. It
ends when its pipe does, so that none survives its parent, whatever killed that; and it does not
import the program that started it, so that any script may call `convert`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from iql_ros.contract import Contract
from iql_ros.errors import IqlRosError
from training.conversion.one_log import convert_to_part
from training.conversion.parts import Part, log_size

# A process takes half a second to start: as long as reading so much, or so many small logs.
WORTH_BYTES, WORTH_LOGS = 1 << 26, 16
# The working folder, which -c puts first, comes last: a training.py in it is not this package.
SERVE = "import sys; sys.path.append(sys.path.pop(0))\n"
SERVE += "from training.conversion.many import serve; serve()"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Failed:
    """A log that gave nothing, and why; `kind` is the name of the error's type."""

    path: Path
    reason: str
    kind: str = "LogError"


def convert_each(
    paths: Sequence[Path], contract: Contract, folder: Path, jobs: int | None
) -> Generator[tuple[Path, Part | Failed], None, None]:
    """Converts logs to parts and gives each when it is finished, in any order.

    Args:
        paths: of the logs.
        contract: what a step is.
        folder: takes the parts.
        jobs: processes; 1 converts here; None takes as many as are worth their start.
    """
    sizes = {path: log_size(path) for path in paths}
    if jobs is None:
        worth = 1 + sum(sizes.values()) // WORTH_BYTES + len(paths) // WORTH_LOGS
        jobs = min(worth, _cores())
    jobs = min(jobs, len(paths))
    if jobs == 1:
        for path in paths:
            yield path, _attempt(path, contract, folder)
        return
    longest_last = sorted(paths, key=lambda path: (sizes[path], path))
    yield from _in_processes(longest_last, contract, folder, jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _attempt(path: Path, contract: Contract, folder: Path) -> Part | Failed:
    """The part of a log, or why there is none; an error that nobody foresaw is one log's too."""
    try:
        return convert_to_part(path, contract, folder)
    except IqlRosError as error:
        return Failed(path, str(error), type(error).__name__)
    except Exception as error:
        kind = type(error).__name__
        return Failed(path, f"{path}: {kind}: {error} (a fault of the converter)", kind)


def _in_processes(
    waiting: list[Path], contract: Contract, folder: Path, jobs: int
) -> Generator[tuple[Path, Part | Failed], None, None]:
    """Hands out paths from the end of `waiting`, the longest log first."""
    setting = json.dumps({"contract": contract.canonical_json(), "folder": str(folder)})
    workers: list[_Worker] = []
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(jobs):
                workers.append(_Worker(setting))
                selector.register(workers[-1].answers, selectors.EVENT_READ, workers[-1])
                workers[-1].give(waiting.pop())
            while selector.get_map():
                for key, _ in selector.select():
                    worker = key.data
                    yield worker.path, worker.answer()
                    if worker.is_dead or not waiting:
                        selector.unregister(worker.answers)
                        worker.stop()
                        if not waiting:
                            continue
                        worker = _Worker(setting)
                        workers.append(worker)
                        selector.register(worker.answers, selectors.EVENT_READ, worker)
                    worker.give(waiting.pop())
        finally:
            for worker in workers:
                worker.stop()


class _Worker:
    """A child process at work on `path`."""

    def __init__(self, setting: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent, which then stops its workers
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks: IO[str] = self._process.stdin
        self.answers: IO[str] = self._process.stdout
        self.is_dead = False
        self.path = Path()
        self._send(setting)

    def give(self, path: Path) -> None:
        """Lets it convert a log."""
        self.path = path
        self._send(json.dumps(str(path)))

    def _send(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it died: `answer` says of what
            self._tasks.write(line + "\n")
            self._tasks.flush()

    def answer(self) -> Part | Failed:
        """What became of the log."""
        line = self.answers.readline()
        if not line.endswith("\n"):
            self.is_dead = True
            return Failed(self.path, f"{self.path}: {self._cause()}", "WorkerDied")
        answer: dict[str, Any] = json.loads(line)
        if "reason" in answer:
            return Failed(self.path, answer["reason"], answer["kind"])
        findings = tuple(answer.pop("findings"))
        return Part(**{**answer, "file": Path(answer["file"]), "findings": findings})

    def _cause(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed: was the memory full? fewer jobs take less"
        return f"its process died ({signal.Signals(-code).name if code < 0 else f'exit {code}'})"

    def stop(self) -> None:
        """Ends the process; a part that it is writing never gets its name."""
        self._process.kill()
        self._process.wait()
        self.answers.close()
        with suppress(BrokenPipeError):
            self._tasks.close()


def serve() -> None:
    """The life of a worker: one line for what to do, then a log a line, an answer for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a reward function prints must not look like an answer
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(lines,), daemon=True).start()
    setting = json.loads(lines.get())
    contract, folder = Contract.from_json(setting["contract"]), Path(setting["folder"])
    while True:
        result = _attempt(Path(json.loads(lines.get())), contract, folder)
        answers.write(json.dumps(asdict(result), default=str) + "\n")
        answers.flush()


def _listen(lines: SimpleQueue[str]) -> None:
    """Ends the process as soon as nobody is left to answer to, even amid a log."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)
