"""No worker outlives the command that started it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.record import record

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


def recording(folder, output):
    command = [sys.executable, "-m", "iql_ros.cli", *COMMANDS["record"], "--jobs", "2"]
    return subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=output, start_new_session=True, text=True
    )


def test_one_interrupt_ends_a_recording_at_once_and_says_what_stays(tmp_path):
    process = recording(tmp_path, subprocess.PIPE)
    assert until(lambda: any(tmp_path.glob("logs/*/metadata.yaml")), 40), "nothing was recorded"
    time.sleep(0.3)  # the next bags are under way, and take seconds more
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, output = process.communicate(timeout=40)
    took_s = time.monotonic() - began
    said = re.fullmatch(
        r"interrupted: whole bags with (\d+) of 400 episodes stay in logs, what began is dropped; "
        r"the same command again goes on where it was",
        output.strip(),
    )
    assert said, output
    whole = [path.name for path in (tmp_path / "logs").iterdir()]
    assert all(name.startswith("diffbot_seed0_") for name in whole)
    assert 50 <= int(said[1]) <= 50 * len(whole)  # one may have become whole at the last moment
    assert process.returncode == 130
    assert took_s < 1.5  # 0.3 s; a busy machine takes longer


def test_what_a_killed_recording_had_begun_is_gone_after_the_next(tmp_path):
    process = recording(tmp_path, subprocess.DEVNULL)
    assert until(lambda: any(tmp_path.glob("logs/.unfinished-*/*")), 40), "nothing was recorded"
    process.kill()
    process.wait()
    assert until(lambda: not in_session(process.pid), 5)
    assert any(tmp_path.glob("logs/.unfinished-*/*"))
    record(tmp_path / "logs", 1, seed=5, world="cartpole")
    assert not any(tmp_path.glob("logs/.unfinished-*"))
