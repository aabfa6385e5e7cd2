"""Worker processes that end when the process that started them is gone, however it ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process
from typing import ParamSpec, TypeVar, final

LOOK_S = 0.5

P = ParamSpec("P")
T = TypeVar("T")


@final
class Pool(ProcessPoolExecutor):
    """Spawned processes, none of which outlives this one by more than a second.

    Ctrl-C, which the terminal sends to all, is for this process alone.
    """

    def __init__(self, jobs: int) -> None:
        """Starts no process yet; there will be `jobs` at most."""
        super().__init__(jobs, get_context("spawn"), initializer=_begin)
        self._not_ours = active_children()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Lets a process call `fn`, and starts one if none is free."""
        # A process inherits what is blocked: one that ignored Ctrl-C only once it runs our code
        # would print a traceback of its imports before.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def drop(self) -> None:
        """Ends the processes amid what they do; only for work that returns next to nothing.

        An answer that is too long for one write to a pipe might be cut and waited for.
        """
        for process in active_children():
            if process not in self._not_ours:
                process.kill()
        self.shutdown()


def _begin() -> None:
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    """Ends this process once another has adopted it; no file that it writes has its name yet."""
    parent = parent_process()
    assert parent is not None
    while os.getppid() == parent.pid:
        time.sleep(LOOK_S)
    os._exit(1)
