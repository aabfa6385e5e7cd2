"""What makes the process's timing steady: scheduler, memory, garbage collection.

Each is asked for by a parameter. Where the system does not permit it the node runs without, and
says so with what to change.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from iql_ros.nodes.settings import Settings, parse_cpus

MCL_CURRENT, MCL_FUTURE = 1, 2
CAP_IPC_LOCK = 14
SWITCH_INTERVAL_S = 0.00001
"""A thread that wakes waits at most so long for another to give up the interpreter.

At 500 Hz under SCHED_FIFO 10 us gave a p99 of lateness of 80 us, 20 us one of 103; 5 us took three
times the CPU in one run of three, 1 us all there was."""
COLLECT_EVERY_S = 1.0


def apply(settings: Settings) -> list[str]:
    """Asks the system for what the parameters want; returns what was not permitted, in words."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    warnings = []
    if settings.cpus:
        warnings += _for_all_threads(
            lambda thread: os.sched_setaffinity(thread, parse_cpus(settings.cpus)),
            f"cpus {settings.cpus}: this machine allows {_spoken(os.sched_getaffinity(0))}",
        )
    if settings.realtime_priority:
        parameters = os.sched_param(settings.realtime_priority)
        warnings += _for_all_threads(
            lambda thread: os.sched_setscheduler(thread, os.SCHED_FIFO, parameters),
            f"realtime_priority {settings.realtime_priority}: set LimitRTPRIO=99 in the systemd "
            f"unit, or rtprio in /etc/security/limits.conf, or give the container --cap-add "
            f"SYS_NICE",
        )
    if settings.lock_memory:
        warnings += _lock_memory()
    return warnings


def go_first() -> None:
    """Puts the calling thread above the others of a process under SCHED_FIFO.

    Of threads with one priority none gives way to another: a tick would wait for the middleware.
    """
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        above = min(99, os.sched_getparam(0).sched_priority + 1)
        with suppress(OSError):  # at the limit of what is permitted: as good as before
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(above))


def _for_all_threads(set_one: object, hint: str) -> list[str]:
    """Calls `set_one` for each thread, the middleware's included; new ones inherit."""
    assert callable(set_one)
    try:
        for thread in os.listdir("/proc/self/task"):
            set_one(int(thread))
    except OSError as error:
        return [f"not permitted ({error.strerror}): {hint}"]
    return []


def _lock_memory() -> list[str]:
    hint = (
        "lock_memory: set LimitMEMLOCK=infinity in the systemd unit, or memlock unlimited in "
        "/etc/security/limits.conf, or give the container --ulimit memlock=-1"
    )
    # Under a finite limit locking succeeds, and a later allocation fails in the midst of a run.
    is_finite = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY
    if is_finite and not _may_lock_any():
        return [f"not permitted (the limit is finite): {hint}"]
    if ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        return [f"not permitted ({os.strerror(ctypes.get_errno())}): {hint}"]
    return []


def _may_lock_any() -> bool:
    """Whether no limit applies, as to root, by the capability CAP_IPC_LOCK."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (effective,) = [int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")]
    return bool(effective >> CAP_IPC_LOCK & 1)


def _spoken(numbers: set[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


class CalmCollector:
    """Garbage is collected between ticks, and only what came to be since the start.

    An automatic collection stops whichever thread is running, and looks at all that torch-sized
    libraries have made; here that is frozen first.
    """

    def __init__(self) -> None:
        """Leaves the collector as it is until `begin`."""
        self._next_s = 0.0
        self.longest_us = 0.0

    def begin(self) -> None:
        """Takes over from the automatic collector."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._next_s = time.monotonic() + COLLECT_EVERY_S

    def after_tick(self) -> None:
        """Collects if it is time to; call it when the tick's command is out."""
        start_s = time.monotonic()
        if start_s >= self._next_s:
            gc.collect()
            self._next_s = start_s + COLLECT_EVERY_S
            self.longest_us = max(self.longest_us, (time.monotonic() - start_s) * 1e6)

    def end(self) -> None:
        """Gives back to the automatic collector."""
        gc.unfreeze()
        gc.enable()
