"""Worker processes that end when the process that started them is gone, however it ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

LOOK_S = 0.5


def pool(jobs: int, *, ignore_interrupts: bool = False) -> ProcessPoolExecutor:
    """A pool of spawned processes, none of which outlives this one by more than a second.

    Args:
        jobs: how many.
        ignore_interrupts: leave Ctrl-C, which the terminal sends to all, to this process.
    """
    return ProcessPoolExecutor(
        jobs, get_context("spawn"), initializer=_begin, initargs=(ignore_interrupts,)
    )


def _begin(ignore_interrupts: bool) -> None:
    if ignore_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    """Ends this process once another has adopted it; no file that it writes has its name yet."""
    parent = parent_process()
    assert parent is not None
    while os.getppid() == parent.pid:
        time.sleep(LOOK_S)
    os._exit(1)
