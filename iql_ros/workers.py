"""Worker processes that end when the process that started them is gone, however it ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process
from types import TracebackType
from typing import ParamSpec, TypeVar, final

LOOK_S = 0.5

P = ParamSpec("P")
T = TypeVar("T")


@final
class Pool(ProcessPoolExecutor):
    """Spawned processes, none of which outlives this one by more than a second.

    Ctrl-C, which the terminal sends to all, is for this process alone.
    """

    def __init__(self, jobs: int, *, drops: bool = False) -> None:
        """Starts no process yet.

        Args:
            jobs: so many at most.
            drops: what becomes of work that is going on when an exception, Ctrl-C included, ends
                the `with` of the pool: it is ended amid what it does, or else waited for. Only for
                work that returns next to nothing, as an answer that is too long for one write to a
                pipe might be cut and waited for. What has not begun never will.
        """
        super().__init__(jobs, get_context("spawn"), initializer=_begin)
        self._drops, self._not_ours = drops, active_children()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Lets a process call `fn`, and starts one if none is free."""
        # A process inherits what is blocked: one that ignored Ctrl-C only once it runs our code
        # would print a traceback of its imports before.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the work, or leaves it; see `drops`."""
        if kind is not None and self._drops:
            for process in active_children():
                if process not in self._not_ours:
                    process.kill()
        self.shutdown(cancel_futures=kind is not None and not self._drops)


def _begin() -> None:
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    """Ends this process once another has adopted it; no file that it writes has its name yet."""
    parent = parent_process()
    assert parent is not None
    while os.getppid() == parent.pid:
        time.sleep(LOOK_S)
    os._exit(1)
