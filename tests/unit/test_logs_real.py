"""Real logs, compared with what rosbags reads from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from iql_ros.errors import LogError
from tests.small_logs import rows_of
from training.logs import open_log

LOGS = Path(__file__).parents[3] / "shared" / "real_logs"
DAMAGED = ("truncated_ros1", "unindexed_ros1")
FOLDERS = (
    sorted(folder.name for folder in LOGS.iterdir() if folder.is_dir()) if LOGS.is_dir() else []
)

pytestmark = pytest.mark.skipif(not FOLDERS, reason=f"no real logs at {LOGS}")


def log_path(name: str) -> Path:
    return next((LOGS / name).glob("*.bag"), LOGS / name)


@pytest.mark.parametrize("name", [name for name in FOLDERS if name not in DAMAGED])
def test_rows_equal_those_of_rosbags(name: str) -> None:
    path = log_path(name)
    log = open_log(path)
    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        theirs = [
            (connection.topic, t_ns, bytes(raw)) for connection, t_ns, raw in reader.messages()
        ]
    ours = rows_of(log)
    assert sorted(ours) == sorted(theirs)
    assert log.findings == []


def test_cut_bag_ends_in_an_error_with_the_remedy() -> None:
    with pytest.raises(LogError, match=r"test_truncated.bag: .* cut: .* `rosbag reindex"):
        open_log(log_path("truncated_ros1"))


def test_bag_that_was_never_closed_is_read() -> None:
    log = open_log(log_path("unindexed_ros1"))
    assert len(rows_of(log)) == 14
    assert "never closed" in log.findings[0]
