"""`iql-ros check` finds what is misspelt, not only what is malformed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError
from iql_ros.verbs import resolve as resolving
from iql_ros.verbs.resolve import resolve
from iql_ros.verbs.terminal import NotInstalledError, room

ROOT = Path(__file__).parents[2]
CRANE = ROOT / "examples" / "crane" / "contract.yaml"
REMOTE = "type: std_msgs/msg/Float64"


def changed(folder, old, new):
    text = CRANE.read_text()
    assert old in text
    path = folder / "contract.yaml"
    path.write_text(text.replace(old, new))
    return load_contract(path), str(path)


@pytest.mark.parametrize("robot", ["arm6", "cartpole", "diffbot", str(CRANE)])
def test_what_is_shipped_resolves_without_a_remark(robot):
    assert resolve(load_contract(robot), robot) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("abs(next_sway)", "abs(next_swoy)", r"reward.expression = .* uses 'next_swoy'.*sway"),
        (REMOTE, "type: std_msgs/msg/Flaot64", r"topics.drive.type = 'std_msgs/msg/Flaot64' .*"
         r"did you mean 'std_msgs/msg/Float64'"),
        ('"point.x"', '"point.xx"', r"signals.target: path 'point.xx' .* it has: x, y, z"),
        ("topic: lift, path: data", "topic: lift, path: dta", r"signals.lift: path 'dta' .*: data"),
        ("topic: drive, path: data", "topic: drive, path: dta", r"actions.speed: path 'dta'"),
        ("max_steps: 160", 'max_steps: 160, terminal: "swey > 1"', r"episode.terminal .* 'swey'"),
        (REMOTE, f"{REMOTE}\n    clock: header", r"topics.drive.clock = 'header': path 'header"),
    ],
)  # fmt: skip
def test_a_misspelt_type_path_or_name_is_refused_with_what_there_is(tmp_path, old, new, said):
    contract, source = changed(tmp_path, old, new)
    with pytest.raises(ContractError, match=said) as error:
        resolve(contract, source)
    assert str(error.value).startswith(f"{source}: ")


def test_every_fault_is_named_at_once(tmp_path):
    contract, source = changed(tmp_path, "path: data", "path: dta")
    with pytest.raises(ContractError) as error:
        resolve(contract, source)
    assert len(str(error.value).splitlines()) == 2


def test_a_type_of_an_unknown_package_is_named_as_not_checked(tmp_path):
    contract, source = changed(tmp_path, "std_msgs/msg/Int32", "crane_msgs/msg/Lift")
    (remark,) = resolve(contract, source)
    assert "not checked: topic 'lift'" in remark
    assert "message_folders" in remark


def test_without_training_the_rules_are_named_as_not_checked(monkeypatch):
    def missing(module):
        raise NotInstalledError(f"'numexpr' is not installed, {module} needs it")

    monkeypatch.setattr(resolving, "room", missing)
    (remark,) = resolve(load_contract("arm6"), "arm6")
    assert "not checked: reward and terminal rule" in remark


@pytest.mark.parametrize("place", ["training.py", "training/__init__.py"])
def test_a_module_of_the_users_that_shadows_a_package_is_named_and_not_run(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("print('theirs was run')")
    done = subprocess.run(
        [sys.executable, "-m", "iql_ros.cli", "check", "arm6"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    where = file if place == "training.py" else file.parent
    assert done.stderr.strip() == (
        f"error: {where} shadows package 'training' of iql_ros, which is in {ROOT}: rename it, or "
        f"take its folder off Python's path (the working folder, PYTHONPATH); if it was installed, "
        f"uninstall it or use a clean venv"
    )
    assert done.stdout == ""


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"'training' is not beside iql_ros in .*: install"):
        room("training.replay")


def test_what_a_package_needs_and_lacks_is_named_with_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="mujoco")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(
        NotInstalledError, match=r"'mujoco' is not .*: pip install 'iql_ros\[sim\]'"
    ):
        room("sim.gate")
