"""The controller asks for the gate's record before it moves a robot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from iql_ros.bundle import load_bundle
from iql_ros.bundles.gate_record import write_gate
from iql_ros.nodes.controller import REFUSED
from iql_ros.nodes.permission import ask
from iql_ros.nodes.settings import Settings
from tests.ros.robot import START_S, Processes, Robot
from tests.small_bundle import Mlp, write_bundle
from tests.small_gate import pass_gate, record_of

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

CONFIGURE, CLEANUP, ACTIVATE = 1, 2, 3
GATE = "iql_controller: gate"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle").path


def start(processes: Processes, bundle: Path, *more: str) -> None:
    parameters = [f"bundle:={bundle}", "mode:=active", "backend:=onnx", *more]
    given = [part for parameter in parameters for part in ("-p", parameter)]
    processes("iql_ros.nodes.controller", "--ros-args", *given)


def test_it_activates_only_what_has_passed_and_says_why_not(
    robot: Robot, processes: Processes, bundle: Path, tmp_path: Path
) -> None:
    start(processes, bundle)

    def activates() -> bool:
        """Configures what is in the folder now, and tries."""
        if robot.state() == "inactive":
            assert robot.transition(CLEANUP)
        assert robot.transition(CONFIGURE), processes.log()
        return robot.transition(ACTIVATE)

    assert not activates()
    assert robot.state() == "inactive"
    assert "has not passed in simulation (no gate.json): run `iql-ros gate" in processes.log()
    assert robot.until(lambda: robot.diagnostics[GATE][1].startswith("refused: "))

    write_gate(load_bundle(bundle), record_of(load_bundle(bundle), successes=80))
    assert not activates()
    assert "failed in simulation: scenario 'nominal': success rate" in processes.log()

    other = write_bundle(tmp_path / "other", Mlp.drawn(1), golden=Mlp.drawn(1).golden())
    shutil.copy(pass_gate(other) / "gate.json", bundle)
    assert not activates()
    assert "is bound to other things: the policy (policy.onnx) is" in processes.log()
    robot.spin(0.5)
    assert not robot.commands

    pass_gate(load_bundle(bundle))
    assert activates(), processes.log()
    assert robot.until(robot.moves)
    assert "UNGATED" not in processes.log()


def test_without_a_lifecycle_manager_a_refusal_ends_the_process(
    processes: Processes, bundle: Path
) -> None:
    process = processes.run(bundle)
    assert process.wait(START_S) == REFUSED
    assert "cannot activate: " in processes.log()
    assert "parameter 'allow_ungated' overrules the gate" in processes.log()


def test_a_person_may_overrule_and_it_is_told_at_each_start(
    robot: Robot, processes: Processes, bundle: Path
) -> None:
    processes("iql_ros.cli", "run", str(bundle), "--mode", "active", "--allow-ungated")
    assert robot.until(robot.moves), processes.log()
    assert robot.until(lambda: robot.diagnostics[GATE][0] == 1)
    assert "overruled by allow_ungated: " in robot.diagnostics[GATE][1]
    assert robot.transition(4)
    assert robot.transition(ACTIVATE)
    assert processes.log().count("UNGATED, as parameter 'allow_ungated' says") == 2


def test_in_simulated_time_nobody_asks(robot: Robot, processes: Processes, bundle: Path) -> None:
    start(processes, bundle, "use_sim_time:=true")
    assert robot.transition(CONFIGURE), processes.log()
    assert robot.transition(ACTIVATE), processes.log()
    assert robot.until(lambda: "not asked in simulated time" in robot.diagnostics[GATE][1])


@pytest.mark.parametrize(
    ("settings", "uses_sim_time", "gate"),
    [
        (Settings(mode="active"), False, "refused: "),
        (Settings(mode="active"), True, "not asked in simulated time: "),
        (Settings(mode="active", allow_ungated=True), False, "overruled by allow_ungated: "),
        (Settings(mode="shadow"), False, "not asked in shadow mode: "),
    ],
)
def test_the_gate_is_asked_only_where_a_robot_may_move(
    bundle: Path, settings: Settings, uses_sim_time: bool, gate: str
) -> None:
    permission = ask(load_bundle(bundle), settings, uses_sim_time=uses_sim_time)
    assert permission.gate.startswith(gate)
    assert (permission.refusal is not None) == gate.startswith("refused")
    assert (permission.warning is not None) == gate.startswith("overruled")


def test_a_record_that_passed_needs_nobody_s_word(bundle: Path) -> None:
    loaded = load_bundle(pass_gate(load_bundle(bundle)))
    permission = ask(loaded, Settings(mode="active", allow_ungated=True), uses_sim_time=False)
    assert permission.gate.startswith("passed 100 episodes of suite toy (111111111111)")
    assert permission.refusal is None
    assert permission.warning is None
