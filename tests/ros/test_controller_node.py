"""The controller node in its own process, over real DDS on the loopback."""

from __future__ import annotations

import signal
from dataclasses import fields
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.context import Context

from iql_ros.bundles.signing import sign_bundle
from iql_ros.errors import IqlRosError
from iql_ros.nodes.controller import REFUSED
from iql_ros.nodes.controller_node import ControllerNode
from iql_ros.nodes.settings import Settings
from tests.keys import write_keys
from tests.ros.robot import START_S, Processes, Robot, is_safe
from tests.small_bundle import write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP = 1, 3, 4, 2


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return pass_gate(write_bundle(tmp_path / "bundle"))


def test_it_moves_only_while_active_and_leaves_the_safe_command_behind(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    given = ["-p", f"bundle:={bundle}", "-p", "mode:=active", "-p", "backend:=onnx"]
    process = processes("iql_ros.nodes.controller", "--ros-args", *given)
    assert robot.transition(CONFIGURE), processes.log()
    robot.spin(0.5)
    assert not robot.commands
    assert robot.transition(ACTIVATE)
    assert robot.until(lambda: len(robot.commands) >= 20)
    assert not is_safe(robot.commands[-1][1])
    times = [t for t, _ in robot.commands]
    assert 0.7 < (times[-1] - times[0]) / ((len(times) - 1) / 20) < 1.4  # 20 Hz on a busy machine

    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert not any(heavy in maps for heavy in ("torch", "h5py", "mujoco"))

    assert robot.transition(DEACTIVATE)
    robot.spin(0.3)
    assert is_safe(robot.commands[-1][1])
    count = len(robot.commands)
    robot.spin(0.3)
    assert len(robot.commands) == count
    assert robot.transition(CLEANUP)
    assert robot.transition(CONFIGURE)
    assert robot.transition(ACTIVATE)
    assert robot.until(robot.moves)
    process.send_signal(signal.SIGTERM)
    assert robot.until(lambda: process.poll() is not None)
    robot.spin(0.3)
    assert robot.rests()
    assert process.wait(20) == 0


def test_without_a_message_of_a_needed_topic_it_never_publishes(
    robot: Robot, processes: Processes, bundle: Path
) -> None:
    robot.talks = False
    processes.run(bundle)
    assert robot.until(lambda: any("is /odom publishing?" in text for text in robot.details))
    robot.spin(1.0)
    assert not robot.commands


def test_with_a_public_key_it_configures_only_what_is_signed(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    secret, public = write_keys(tmp_path / "keys", Ed25519PrivateKey.generate())
    parameters = ["-p", f"bundle:={bundle}", "-p", f"public_key:={public}"]
    parameters += ["-p", "backend:=onnx"]
    processes("iql_ros.nodes.controller", "--ros-args", *parameters)
    assert not robot.transition(CONFIGURE)
    assert "is not signed, and key" in processes.log()
    sign_bundle(bundle, secret)
    assert robot.transition(CONFIGURE)


def test_a_signal_ends_it_with_the_safe_command(
    robot: Robot, processes: Processes, bundle: Path
) -> None:
    process = processes.run(bundle)
    assert robot.until(robot.moves)
    process.send_signal(signal.SIGINT)
    assert robot.until(lambda: process.poll() is not None, 20)
    robot.spin(0.3)
    assert process.returncode == 0
    assert is_safe(robot.commands[-1][1])


def test_an_altered_bundle_does_not_configure_and_the_log_says_why(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    policy = bundle / "policy.onnx"
    data = bytearray(policy.read_bytes())
    data[len(data) // 2] ^= 1
    policy.write_bytes(data)
    process = processes.run(bundle)
    assert process.wait(START_S) == REFUSED
    assert "policy.onnx" in processes.log()
    assert not robot.commands


def test_a_bundle_of_another_contract_does_not_configure(
    processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    process = processes("iql_ros.cli", "run", str(bundle), "--contract", "arm6")
    assert process.wait(START_S) == REFUSED
    assert "first difference" in processes.log()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("speed:=2.0", "speed"),
        ("mode:=fast", "mode"),
        ("speed:=1", "expecting type"),
        ("speed", "'-p speed'"),
        ("max_speeed:=0.2", "parameter 'max_speeed' is none of this node's: did you mean 'speed'?"),
        ("robot_description:=x", "'robot_description' is none of this node's\nit has bundle, "),
    ],
)
def test_a_wrong_parameter_at_start_ends_it_with_the_reason(
    processes: Processes, bundle: Path, given: str, said: str
) -> None:
    process = processes.run(bundle, given)
    assert process.wait(START_S) == REFUSED
    assert said in processes.log()
    assert "Traceback" not in processes.log()


def built_with(*arguments: str) -> None:
    """Makes a node of its own context, and ends it."""
    context = Context()
    rclpy.init(args=["--ros-args", *arguments], context=context)
    try:
        ControllerNode(context=context).destroy_node()
    finally:
        context.try_shutdown()


def test_each_unknown_parameter_is_named_with_the_nearest_and_where_all_are_listed() -> None:
    with pytest.raises(IqlRosError) as raised:
        built_with("-p", "policy_speed:=0.2", "-p", "requires_gate:=false")
    first, second, known, files = str(raised.value).splitlines()
    assert first == "parameter 'policy_speed' is none of this node's: did you mean 'speed'?"
    assert second.startswith("parameter 'requires_gate' is none of this node's")
    assert known == f"it has {', '.join(f.name for f in fields(Settings))} (docs/operation.md)"
    assert files == "what another node is to get must not stand under /** in a parameter file"


def test_parameters_of_ros_and_of_other_nodes_are_no_business_of_the_controller(
    tmp_path: Path,
) -> None:
    of_ros = "use_sim_time: true, start_type_description_service: false"
    qos = '"qos_overrides./odom.subscription.depth": 1'
    file = tmp_path / "params.yaml"
    file.write_text(
        f"/**: {{ros__parameters: {{{of_ros}, {qos}}}}}\nanother: {{ros__parameters: {{foo: 1}}}}\n"
    )
    built_with("--params-file", str(file))
    file.write_text("/**: {ros__parameters: {foo: 1}}\n")
    with pytest.raises(IqlRosError, match="'foo' is none"):
        built_with("--params-file", str(file))


def test_the_service_is_not_started_again_where_it_would_be_refused_again() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operation.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("RestartPreventExitStatus=")]
    assert str(REFUSED) in line.partition("=")[2].split()
