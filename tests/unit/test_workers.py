"""No worker outlives the command that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = {
    "record": ["record", "--robot", "diffbot", "--out", "logs", "--episodes", "400"],
    "demo": ["demo", "--robot", "diffbot", "--out", "demo"],
}


def in_session(session):
    """The living processes of a session, by their command line; zombies apart."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # it ended meanwhile
    return found


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return held


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to the group"])
def test_no_process_is_left_five_seconds_after_the_command_was_ended(tmp_path, name, how):
    command = [sys.executable, "-m", "iql_ros.cli", *COMMANDS[name]]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True
        )
    try:
        assert until(lambda: any(tmp_path.glob("**/.unfinished-*/*")), 40), "nothing was recorded"
        if how == "SIGTERM":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        until(lambda: process.poll() is not None, 5)
        until(lambda: not in_session(process.pid), 5)
        assert in_session(process.pid) == {}
    finally:
        for left in in_session(process.pid):
            os.kill(left, signal.SIGKILL)
        process.wait(5)
