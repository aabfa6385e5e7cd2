"""Processes of nodes and a stand-in robot, for each test anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # where there is no rclpy, tests skip instead of failing here
    from tests.ros.robot import Processes, Robot


@pytest.fixture
def robot(processes: Processes) -> Iterator[Robot]:
    """Closed before its peers are killed.

    In Fast DDS 2.14 (Jazzy) a participant that is deleted right after a peer was killed may lock a
    mutex in shared memory that is mapped no more: now and then the test's process crashed.
    """
    from tests.ros.robot import robot_on

    with robot_on() as robot:
        yield robot


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    from tests.ros.robot import processes_in

    with processes_in(tmp_path) as processes:
        yield processes
