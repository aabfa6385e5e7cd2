"""The launch files, read as text everywhere and built where ROS's launch is installed."""

from __future__ import annotations

import ast
import importlib.util
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.small_bundle import write_bundle
from tests.small_gate import pass_gate

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
    require_launch()
    arguments = load(name).generate_launch_description().get_launch_arguments()
    shown = {argument.name: argument.description for argument in arguments}
    # An included file's arguments are shown too, those that are set for it as well.
    assert ARGUMENTS[name] <= set(shown) <= ARGUMENTS[name] | CONTROLLER
    assert all(shown.values())


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # lark, within rclpy
@pytest.mark.parametrize(("name", "topic"), [("controller", "/cmd"), ("shadow", "/cmd/shadow")])
def test_a_launched_controller_acts_and_ends_with_the_launch(
    tmp_path: Path, name: str, topic: str
) -> None:
    require_launch()
    # Here, as this file is read without ROS too.
    from tests.ros.robot import processes_in, robot_on

    bundle = pass_gate(write_bundle(tmp_path / "bundle"))
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**: {ros__parameters: {backend: onnx}}")
    given = [f"bundle:={bundle}", "mode:=active", f"params_file:={parameters}"]
    with processes_in(tmp_path) as processes, robot_on() as robot:
        launch = processes("tests.ros.launcher", str(launch_file(name)), *given)
        heard = robot.commands if topic == "/cmd" else robot.shadows
        assert robot.until(lambda: len(heard) > 10), processes.log()
        if name == "shadow":  # whatever mode it is given
            assert not robot.commands
        launch.send_signal(signal.SIGINT)
        assert robot.until(lambda: launch.poll() is not None, 30)
        assert launch.returncode == 0, processes.log()
        assert robot.until(lambda: "iql_controller" not in robot.node.get_node_names(), 10)
        if name == "controller":
            assert robot.rests()


def require_launch() -> None:
    pytest.importorskip("launch.launch_description", reason="ROS's launch is not installed")
    pytest.importorskip("launch_ros.actions", reason="ROS's launch_ros is not installed")


def test_the_parameter_file_names_only_parameters_of_the_node() -> None:
    text = (ROOT / "launch/controller.params.yaml").read_text()
    given = yaml.safe_load(text)["/**"]["ros__parameters"]
    declared_types = dict(
        re.findall(r"^    (\w+): (\w+) = _setting\(", NODES["controller"].read_text(), re.MULTILINE)
    )
    assert {name: type(value).__name__ for name, value in given.items()} == {
        name: declared_types[name] for name in given
    }
