"""Many logs at once: any order, number of processes or interruption gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from iql_ros.cli import main
from iql_ros.contract import Contract
from iql_ros.errors import ContractError, DatasetError, LogError
from tests.bags import float64, toy_contract, twist, write_bag
from training.conversion.convert import Failed, Part, convert
from training.conversion.parts import WHOLE_BYTES, identify

ROOT = Path(__file__).parents[2]
LOGS = 4


def contract(**changes: Any) -> Contract:
    signals = [{"name": "again", "topic": "state", "path": "data"}]
    return toy_contract(**{"signals": signals, **changes})


def a_log(path: Path, number: int, states: int = 6) -> Path:
    start = 10_000 * number
    entries = [
        *(("/state", "std_msgs/msg/Float64", start + 100 * k, float64(k)) for k in range(states)),
        *(("/cmd", "geometry_msgs/msg/Twist", start + 100 * k + 50, twist(k)) for k in range(6)),
    ]
    return write_bag(path, entries)


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    return [a_log(tmp_path / "logs" / f"bag{i}", i) for i in range(LOGS)]


def expected(tmp_path: Path, logs: list[Path]) -> bytes:
    """The bytes of the dataset that one process makes without a pause."""
    out = tmp_path / "expected" / "a.h5"
    convert(logs, contract(), out, jobs=1)
    return out.read_bytes()


def stop_after(count: int) -> Callable[[Path, Part | Failed], None]:
    seen: list[Path] = []

    def progress(path: Path, result: Part | Failed) -> None:
        seen.append(path)
        if len(seen) == count:
            raise KeyboardInterrupt

    return progress


def children() -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
        if parent == os.getpid():
            found.append(int(stat.parent.name))
    return found


def test_processes_and_orders_give_the_bytes_of_one_process(
    tmp_path: Path, logs: list[Path]
) -> None:
    seen: list[Path] = []
    report = convert(
        logs[::-1],
        contract(),
        tmp_path / "a.h5",
        jobs=3,
        progress=lambda path, _: seen.append(path),
    )
    assert (tmp_path / "a.h5").read_bytes() == expected(tmp_path, logs)
    assert sorted(seen) == logs
    assert (report["steps"], report["episodes"], report["failed"]) == (5 * LOGS, LOGS, [])
    assert [log["name"] for log in report["logs"]] == [log.name for log in logs]
    assert not (tmp_path / "a.h5.parts").exists()


def test_columns_are_those_of_the_logs_one_after_another(tmp_path: Path, logs: list[Path]) -> None:
    convert(logs, contract(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["observations"][:, 0].tolist() == [0, 1, 2, 3, 4] * LOGS
        assert file["next_observations"][:, 0].tolist() == [1, 2, 3, 4, 5] * LOGS
        assert file["infos/signals/again"][:, 0].tolist() == [0, 1, 2, 3, 4] * LOGS
        assert file["infos/source"][:].tolist() == np.repeat(range(LOGS), 5).tolist()
        assert file["infos/episode"][:].tolist() == np.repeat(range(LOGS), 5).tolist()
        assert np.flatnonzero(file["timeouts"]).tolist() == [4, 9, 14, 19]
        assert (np.diff(file["infos/t_ns"]) > 0).all()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_conversion_goes_on_and_repeats_no_finished_log(
    tmp_path: Path, logs: list[Path], jobs: int
) -> None:
    out = tmp_path / "a.h5"
    with pytest.raises(KeyboardInterrupt):
        convert(logs, contract(), out, jobs=jobs, progress=stop_after(2))
    assert children() == []
    assert not out.exists()
    finished = sorted(out.with_name("a.h5.parts").glob("*.npz"))
    assert len(finished) >= 2
    written = {file: file.stat().st_mtime_ns for file in finished}
    results: list[Any] = []

    def look(path: Path, result: Part | Failed) -> None:
        results.append(result)
        assert {file: file.stat().st_mtime_ns for file in finished} == written

    convert(logs, contract(), out, jobs=1, progress=look)
    assert sum(result.resumed for result in results) == len(finished)
    assert out.read_bytes() == expected(tmp_path, logs)
    assert not out.with_name("a.h5.parts").exists()


def test_a_damaged_part_is_made_again(tmp_path: Path, logs: list[Path]) -> None:
    out = tmp_path / "a.h5"
    with pytest.raises(KeyboardInterrupt):
        convert(logs, contract(), out, jobs=1, progress=stop_after(3))
    flipped, cut, whole = sorted(out.with_name("a.h5.parts").glob("*.npz"))
    with np.load(flipped) as stored:
        arrays = {**stored, "rewards": stored["rewards"] + 1}
    np.savez(flipped, **arrays)
    cut.write_bytes(cut.read_bytes()[:-100])
    results: list[Any] = []
    convert(logs, contract(), out, jobs=1, progress=lambda _, result: results.append(result))
    assert [result.file for result in results if result.resumed] == [whole]
    assert out.read_bytes() == expected(tmp_path, logs)


def test_parts_of_another_contract_or_reward_function_are_not_taken(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code" / "my_rewards_of_many.py"
    code.parent.mkdir()
    code.write_text("def r(s):\n    print('noise')\n    return s['x']\n")
    monkeypatch.syspath_prepend(code.parent)
    mine = contract(reward={"function": "my_rewards_of_many:r"})
    out = tmp_path / "a.h5"
    for other in (contract(), mine):
        with pytest.raises(KeyboardInterrupt):
            convert(logs, other, out, jobs=1, progress=stop_after(LOGS))
    code.write_text("def r(s):\n    print('noise')\n    return s['x'] * 2\n")
    results: list[Any] = []
    # In a process of its own: this one has imported the function as it was.
    convert(logs, mine, out, jobs=2, progress=lambda _, result: results.append(result))
    assert not any(result.resumed for result in results)
    with h5py.File(out) as file:
        assert file["rewards"][:5].tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_log_and_an_unforeseen_error_end_no_other_log(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    code = tmp_path / "code" / "my_fragile_reward.py"
    code.parent.mkdir()
    code.write_text("def r(s):\n    return s['x'] if len(s['x']) == 5 else 1 // 0\n")
    monkeypatch.syspath_prepend(code.parent)
    fragile = contract(reward={"function": "my_fragile_reward:r"})
    short = a_log(tmp_path / "logs" / "short", 7, states=4)
    empty = tmp_path / "logs" / "empty.bag"
    empty.touch()
    report = convert([tmp_path / "logs"], fragile, tmp_path / "a.h5", jobs=jobs)
    assert report["steps"] == 5 * LOGS
    by_path = {failure["path"]: failure for failure in report["failed"]}
    assert list(by_path) == [str(empty), str(short)]
    assert by_path[str(empty)]["kind"] == "LogError"
    assert by_path[str(short)]["kind"] == "ZeroDivisionError"
    assert "short: ZeroDivisionError: " in by_path[str(short)]["reason"]
    assert json.loads((tmp_path / "a.report.json").read_text()) == report


def test_a_process_that_dies_costs_only_its_log(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code" / "my_deadly_reward.py"
    code.parent.mkdir()
    code.write_text(
        "import os\ndef r(s):\n    if len(s['x']) != 5:\n        os.kill(os.getpid(), 9)\n"
        "    return s['x']\n"
    )
    monkeypatch.syspath_prepend(code.parent)
    deadly = contract(reward={"function": "my_deadly_reward:r"})
    a_log(tmp_path / "logs" / "short", 7, states=4)
    report = convert([tmp_path / "logs"], deadly, tmp_path / "a.h5", jobs=2)
    assert report["steps"] == 5 * LOGS
    (failure,) = report["failed"]
    assert "its process was killed: was the memory full" in failure["reason"]


def test_a_training_module_in_the_working_folder_is_not_taken_for_the_package(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "training.py").write_text("raise SystemExit('theirs was run')")
    monkeypatch.chdir(tmp_path)
    assert convert(logs, contract(), tmp_path / "a.h5", jobs=2)["steps"] == 5 * LOGS


def test_logs_that_all_fail_end_in_one_error_that_names_each(tmp_path: Path) -> None:
    bags = [a_log(tmp_path / f"bag{i}", i, states=0) for i in range(3)]
    with pytest.raises(LogError, match=r"none of 3 logs gave a step:\n.*bag0.*\n.*bag1.*\n.*bag2"):
        convert(bags, contract(), tmp_path / "a.h5", jobs=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bag0", "bag1", "bag2"]
    wrong = contract(reward={"expression": "y"})
    with pytest.raises(ContractError, match="uses 'y', which is no component"):
        convert([a_log(tmp_path / "bag3", 3)], wrong, tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"reward": {"expression": "next_y - x"}},
            [
                "error: reward.expression = 'next_y - x' uses 'next_y', which is no component: "
                "there are u, x, again, each also with the prefix next_"
            ],
        ),
        (
            {"reward": {"function": "nowhere:reward"}},
            [
                "left out reward.function = 'nowhere:reward' cannot be imported: No module named "
                "'nowhere'",
                "error: none of 4 logs gave a step: the reasons are above",
            ],
        ),
    ],
)
def test_the_command_line_says_each_fault_once(
    tmp_path: Path,
    logs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    lines: list[str],
) -> None:
    file = tmp_path / "contract.yaml"
    file.write_text(contract(**changes).canonical_json())
    out = tmp_path / "a.h5"
    arguments = ["convert", str(logs[0].parent), "--contract", str(file), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["iql-ros", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line] == lines
    assert sorted(file.name for file in tmp_path.iterdir()) == ["contract.yaml", "logs"]


def test_a_copy_of_a_log_is_told(tmp_path: Path, logs: list[Path]) -> None:
    shutil.copytree(logs[0], tmp_path / "logs" / "copy")
    report = convert([tmp_path / "logs"], contract(), tmp_path / "a.h5", jobs=1)
    assert report["steps"] == 5 * (LOGS + 1)
    assert [log["name"] for log in report["logs"]][:2] == ["bag0", "copy"]
    assert report["logs"][1]["findings"][-1] == "a copy of bag0: its steps are there twice"


def test_what_others_keep_in_the_folder_of_parts_stays(tmp_path: Path, logs: list[Path]) -> None:
    mine = tmp_path / "a.h5.parts" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    convert(logs, contract(), tmp_path / "a.h5")
    assert list(mine.parent.iterdir()) == [mine]


# -- interrupted from outside ----------------------------------------------------------

CONVERT = """
import json, sys
from pathlib import Path
from iql_ros.cli import main
from iql_ros.contract import Contract
from training.conversion.convert import convert
def progress(path, result):
    print(path, flush=True)
convert([Path(sys.argv[1])], Contract.from_json(sys.argv[2]), Path(sys.argv[3]),
        jobs=int(sys.argv[4]), progress=progress)
"""
SLOW = """
import os, time
def r(s):
    time.sleep(float(os.environ.get("SLOW_S", 0)))
    return s["x"]
"""


def begun(tmp_path: Path, slow: Contract, out: Path, jobs: int) -> subprocess.Popen[str]:
    """A conversion in a process of its own, of which one log is finished."""
    arguments = [str(tmp_path / "logs"), slow.canonical_json(), str(out), str(jobs)]
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Whatever started the tests in the background may have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "SLOW_S": "2"},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def workers_of(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()]


def ended(pids: list[int]) -> bool:
    """Whether all of them end within two seconds."""
    for _ in range(200):
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_conversion_leaves_no_process_and_goes_on(
    tmp_path: Path, logs: list[Path], how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_slow_reward.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    slow = contract(reward={"function": "my_slow_reward:r"})
    out = tmp_path / "a.h5"
    process = begun(tmp_path, slow, out, jobs=2)
    workers = workers_of(process.pid)
    process.send_signal(how)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert len(workers) == 2
    assert ended(workers)
    assert not out.exists()
    results: list[Any] = []
    convert(logs, slow, out, jobs=1, progress=lambda _, result: results.append(result))
    assert 1 <= sum(result.resumed for result in results) < LOGS
    whole = tmp_path / "b.h5"
    convert(logs, slow, whole, jobs=1)
    assert out.read_bytes() == whole.read_bytes()


def test_two_conversions_to_one_file_are_refused(tmp_path: Path, logs: list[Path]) -> None:
    def again(path: Path, result: Part | Failed) -> None:
        with pytest.raises(DatasetError, match=r"another process is converting to .*a\.h5: wait"):
            convert(logs, contract(), tmp_path / "a.h5", jobs=1)

    convert(logs, contract(), tmp_path / "a.h5", jobs=1, progress=again)


# -- which log it is -------------------------------------------------------------------


def test_a_small_log_is_identified_by_all_its_bytes(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    log.write_bytes(b"abc")
    before = identify(log)
    assert before.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a.mcap-wal").write_bytes(b"pending")
    assert identify(log).sha256 != before.sha256


def test_a_large_log_is_identified_by_its_size_ends_and_samples(tmp_path: Path) -> None:
    size = WHOLE_BYTES + 1
    seen = []
    for at in (None, 0, size // 2, size - 1):
        log = tmp_path / "a.mcap"
        with log.open("wb") as file:
            file.truncate(size)
            if at is not None and at != size // 2:
                file.seek(at)
                file.write(b"x")
            elif at is not None:
                file.seek(32 * (size - (1 << 16)) // 63)  # the 33rd of the 64 samples
                file.write(b"x")
        seen.append(identify(log))
    assert all(identity.sampled for identity in seen)
    assert len({identity.sha256 for identity in seen}) == 4
