"""`iql-ros check` finds what is misspelt, not only what is malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError
from iql_ros.verbs import resolve as resolving
from iql_ros.verbs.resolve import resolve

CRANE = Path(__file__).parents[2] / "examples" / "crane" / "contract.yaml"
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
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(resolving, "room", missing)
    (remark,) = resolve(load_contract("arm6"), "arm6")
    assert "not checked: reward and terminal rule" in remark
