"""The launch files, read as text everywhere and built where ROS's launch is installed."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

CONTROLLER = {
    "bundle",
    "mode",
    "allow_ungated",
    "policy_speed",
    "executor",
    "use_sim_time",
    "namespace",
    "params_file",
    "autostart",
    "log_level",
}
ARGUMENTS = {
    "controller": CONTROLLER,
    "sim": CONTROLLER | {"speed", "episodes", "seed", "results", "world", "compare_with"},
    "gate": {"bundle", "world", "episodes", "seed", "speed", "results", "params_file"},
    "shadow": {"bundle", "namespace", "use_sim_time", "params_file"},
}
PARAMETERS = {
    "controller": r"^    (\w+): \w+ = _setting\(",
    "sim": r'_parameter\(\s*"(\w+)"',
}
NODES = {"controller": ROOT / "iql_ros/nodes/settings.py", "sim": ROOT / "sim/node.py"}


def launch_file(name: str) -> Path:
    return ROOT / "launch" / f"{name}.launch.py"


def declared(name: str) -> dict[str, str]:
    """Return the description of each argument that a launch file declares."""
    calls = [
        node
        for node in ast.walk(ast.parse(launch_file(name).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "DeclareLaunchArgument"
    ]
    return {
        ast.literal_eval(call.args[0]): "".join(
            ast.literal_eval(word.value) for word in call.keywords if word.arg == "description"
        )
        for call in calls
    }


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_launch", launch_file(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_launch_argument_is_declared_and_described(name: str) -> None:
    descriptions = declared(name)
    assert set(descriptions) == ARGUMENTS[name]
    assert all(descriptions.values()), descriptions


def test_simulation_hands_on_every_argument_of_the_controller() -> None:
    tree = ast.parse(launch_file("sim").read_text())
    handed_on = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "CONTROLLER_ARGUMENTS"
    )
    assert set(handed_on) == set(declared("controller"))


def test_shadow_is_shadow() -> None:
    assert '("mode", "shadow")' in launch_file("shadow").read_text()
    assert ARGUMENTS["shadow"] <= CONTROLLER


@pytest.mark.parametrize("name", NODES)
def test_launch_file_sets_only_parameters_that_the_node_declares(name: str) -> None:
    given = set(re.findall(r'"(\w+)": ParameterValue\(', launch_file(name).read_text()))
    known = set(re.findall(PARAMETERS[name], NODES[name].read_text(), re.MULTILINE))
    assert given - {"use_sim_time"} <= known
    assert given


@pytest.mark.ros
@pytest.mark.parametrize("name", ARGUMENTS)
def test_launch_description_is_built(name: str) -> None:
    pytest.importorskip("launch.launch_description", reason="ROS's launch is not installed")
    pytest.importorskip("launch_ros.actions", reason="ROS's launch_ros is not installed")
    description = load(name).generate_launch_description()
    assert ARGUMENTS[name] == {argument.name for argument in description.get_launch_arguments()}


def test_the_parameter_file_names_only_parameters_of_the_node() -> None:
    text = (ROOT / "launch/controller.params.yaml").read_text()
    given = yaml.safe_load(text)["/**"]["ros__parameters"]
    declared_types = dict(
        re.findall(r"^    (\w+): (\w+) = _setting\(", NODES["controller"].read_text(), re.MULTILINE)
    )
    assert {name: type(value).__name__ for name, value in given.items()} == {
        name: declared_types[name] for name in given
    }
