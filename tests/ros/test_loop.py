"""The loop around the controller without a node: hangs, late ticks, disks, parameters."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from iql_ros.contract import Contract
from iql_ros.control.outputs import Output
from iql_ros.control.status import Status
from iql_ros.errors import IqlRosError
from iql_ros.nodes import operation
from iql_ros.nodes.boxes import KEPT, Boxes
from iql_ros.nodes.controller_node import ControllerNode
from iql_ros.nodes.diagnostics import KEPT as TIMES
from iql_ros.nodes.diagnostics import Times
from iql_ros.nodes.incumbent import Incumbent
from iql_ros.nodes.inputs import Inputs
from iql_ros.nodes.loading import load
from iql_ros.nodes.loop import Loop
from iql_ros.nodes.operation import Reloading
from iql_ros.nodes.realtime import CalmCollector, apply
from iql_ros.nodes.settings import Settings, refusal
from iql_ros.nodes.ticking import SteadyTicks
from iql_ros.policies import Opened
from iql_ros.wire import Writer
from tests.small_bundle import CONTRACT, write_bundle
from tests.small_gate import pass_gate

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]


class Log:
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.info = self.warning = self.error = self.lines.append


class Slow:
    """A policy that waits for as long as it is told to, and answers or raises what it is told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.answer: np.ndarray | Exception = np.array([0.2, 0.5], np.float32)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Bench:
    """A loop whose policy can hang, and what it publishes."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(mode="active", backend="onnx", watchdog_s=0.2, black_box="")
        self.bundle = write_bundle(folder / "bundle")
        pass_gate(self.bundle)
        loaded = load(self.settings, str(self.bundle.path), uses_sim_time=False)
        opened = loaded.opened
        self.policy = Slow()
        slow = Opened(self.policy, opened.backend, opened.verification, "a test")
        self.loaded = replace(loaded, opened=slow)
        self.sent: list[bytes] = []
        self.log = Log()
        self.boxes = Boxes(folder / "box", "node", 30.0, self.log.info)
        self.loop = Loop(
            self.loaded, self.settings, time.time_ns, self._publish, self.log, self.boxes
        )
        self.safe = Output(CONTRACT, loaded.types, "cmd").write(0, CONTRACT.action_safe)
        paths = ["pose.pose.position.x"]
        self.odom = Writer(loaded.types, "nav_msgs/msg/Odometry", paths, {}).write(np.array([1.0]))

    def _publish(self, payloads: dict[str, bytes]) -> None:
        self.sent.append(payloads["cmd"])

    def tick(self) -> None:
        self.loop.receive("odom", self.odom)
        self.loop.tick()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.loop.start()
    yield bench
    bench.policy.seconds = 0.0
    bench.loop.stop()
    bench.loop.close()
    bench.boxes.close()


def until(condition: object, seconds: float = 20.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_a_policy_that_hangs_gives_the_safe_command_and_latches_the_stop(bench: Bench) -> None:
    bench.tick()
    assert bench.sent[-1] != bench.safe
    bench.policy.seconds = 2.0
    began = time.monotonic()
    hung = threading.Thread(target=bench.tick)
    hung.start()
    assert until(lambda: bench.sent[-1] == bench.safe)
    assert hung.is_alive()
    assert time.monotonic() - began < 1.5
    bench.loop.receive("odom", bench.odom)  # does not wait for the tick that hangs
    assert not bench.loop.release()
    hung.join()
    bench.policy.seconds = 0.0
    bench.tick()
    assert bench.loop.latest is not None
    assert bench.loop.latest.status is Status.HALTED
    assert bench.loop.halted == "a tick took longer than 0.2 s"
    assert bench.sent[-1] == bench.safe
    assert bench.loop.release()
    bench.tick()
    assert bench.sent[-1] != bench.safe


@pytest.mark.parametrize("answer", [ValueError("a bug"), np.full(2, np.nan, np.float32)])
def test_a_policy_that_raises_or_gives_nan_falls_back(
    bench: Bench, answer: np.ndarray | Exception
) -> None:
    bench.tick()
    sound = bench.policy.answer
    assert bench.sent[-1] != bench.safe
    bench.policy.answer = answer
    bench.tick()
    assert bench.sent[-1] == bench.safe
    assert bench.loop.latest is not None
    assert bench.loop.latest.status is Status.POLICY
    bench.policy.answer = sound
    bench.tick()
    assert bench.sent[-1] != bench.safe


def test_a_bug_in_a_tick_gives_the_safe_command_and_latches_the_stop(bench: Bench) -> None:
    bench.tick()
    assert bench.sent[-1] != bench.safe
    add, bench.loop.account.add = bench.loop.account.add, broken_account
    bench.tick()  # does not raise: the thread that ticks lives on
    assert bench.sent[-1] == bench.safe
    assert bench.loop.halted == "a tick raised, see the log"
    assert any("ZeroDivisionError: a bug" in line for line in bench.log.lines)
    bench.loop.account.add = add
    assert bench.loop.release()
    bench.tick()
    assert bench.sent[-1] != bench.safe


def broken_account(command: object) -> None:
    raise ZeroDivisionError("a bug")


def test_inputs_that_raise_are_told_and_the_trigger_is_watched_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    context = Context()
    rclpy.init(context=context, args=[])
    owner = rclpy.create_node("owner", context=context)
    inputs = Inputs(owner)
    checks: list[float] = []

    def serve() -> None:
        raise ZeroDivisionError("a bug")

    inputs._server = lambda kind, wait_s: (serve, lambda: None)  # type: ignore[method-assign]
    inputs.start("single", lambda: checks.append(time.monotonic()), 0.01)
    assert until(lambda: len(checks) >= 3)
    assert inputs.stop(5.0)
    inputs.node.destroy_node()
    owner.destroy_node()
    context.try_shutdown()
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def test_a_reload_that_a_cleanup_overtakes_does_not_claim_success(bench: Bench) -> None:
    context = Context()
    rclpy.init(context=context, args=[])
    owner = rclpy.create_node("owner", context=context)
    loops = iter([bench.loop, None])
    reloading = Reloading(owner, lambda: next(loops))
    answering = reloading._change(Trigger.Response(), lambda loop: bench.loaded)
    answer = None
    while answer is None:
        try:
            answering.send(None)
        except StopIteration as ended:
            answer = ended.value
    owner.destroy_node()
    context.try_shutdown()
    assert not answer.success
    assert answer.message == "the node was cleaned up meanwhile: nothing has changed"


def test_a_publisher_that_raises_does_not_end_the_ticks(bench: Bench) -> None:
    def broken(payloads: dict[str, bytes]) -> None:
        raise RuntimeError("no middleware")

    bench.loop._publish_raw = broken
    bench.tick()
    assert any("could not be published" in line for line in bench.log.lines)
    bench.loop._publish_raw = bench._publish
    bench.tick()
    assert bench.sent


def test_a_swap_keeps_messages_and_the_latched_stop(bench: Bench) -> None:
    bench.tick()
    bench.loop.halt("a test")
    bench.loop.swap(bench.loaded)
    assert bench.loop.halted == "a test"
    assert bench.loop.release()
    bench.loop.tick()  # no message since
    assert bench.loop.latest is not None
    assert bench.loop.latest.status.acts


def test_the_last_word_is_the_safe_command(bench: Bench) -> None:
    bench.tick()
    assert bench.loop.stop()
    assert bench.sent[-1] == bench.safe
    count = len(bench.sent)
    bench.tick()
    assert len(bench.sent) == count


def test_only_the_newest_recordings_are_kept(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir()
    for i in range(KEPT + 5):
        (folder / f"node-2000{i:04}-shutdown.mcap").touch()
    (folder / "another-20000000-shutdown.mcap").touch()
    bench.tick()
    bench.loop.keep("shutdown")
    bench.boxes.close()
    kept = sorted(path.name for path in folder.glob("node-*"))
    assert len(kept) == KEPT
    assert kept[-1].startswith("node-2")
    assert kept[-1] > "node-2001"
    assert (folder / "another-20000000-shutdown.mcap").exists()


def test_faults_in_a_row_give_one_recording(bench: Bench, tmp_path: Path) -> None:
    nan = Writer(bench.loaded.types, "nav_msgs/msg/Odometry", ["pose.pose.position.x"], {})
    bad = nan.write(np.array([math.nan]))
    for _ in range(3):
        bench.tick()
        bench.loop.receive("odom", bad)
        bench.loop.tick()
    bench.boxes.close()
    assert len(list((tmp_path / "box").glob("*fault-not-finite.mcap"))) == 1


def test_late_ticks_are_counted_and_not_made_up() -> None:
    began: list[float] = []

    def tick(lateness_ns: int) -> None:
        began.append(time.monotonic())
        if len(began) == 3:
            time.sleep(0.25)

    ticks = SteadyTicks(50, tick)
    assert until(lambda: len(began) >= 8)
    ticks.stop()
    assert ticks.late >= 11  # of 250 ms, at 20 ms each
    period_s = 1 / 50
    phases = [((t - began[0]) / period_s) % 1 for t in began[3:8]]
    # Back on the grid: the first after the pause waits for its deadline.
    assert sum(min(phase, 1 - phase) < 0.4 for phase in phases) >= 3
    assert began[7] - began[3] > 3 * period_s


def test_no_tick_comes_before_its_deadline() -> None:
    lateness_ns: list[int] = []
    ticks = SteadyTicks(500.0, lateness_ns.append)
    assert until(lambda: len(lateness_ns) >= 100)
    ticks.stop()
    assert min(lateness_ns) >= 0


def test_percentiles_are_of_the_newest_times() -> None:
    times = Times()
    assert times.percentiles() == {}
    for us in range(1, TIMES + 101):
        times.add(float(us))
    assert times.percentiles() == {
        "p50": TIMES / 2 + 101,
        "p95": 0.95 * TIMES + 101,
        "p99": 0.99 * TIMES + 101,
        "max": TIMES + 100,
    }


def test_garbage_is_collected_between_ticks_only() -> None:
    collector = CalmCollector()
    collector.begin()
    try:
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        collector.after_tick()  # not yet due
        collector._next_s = 0.0
        collector.after_tick()
        assert collector.longest_us > 0
    finally:
        collector.end()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("speed", math.nan, "must be 0.0 to 1.0"),
        ("mode", "fast", "must be one of shadow, active"),
        ("cpus", "two", "give numbers such as 2,3"),
        ("watchdog_s", 0.0, "must be 0.05 to 60.0"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_rule(name: str, value: object, said: str) -> None:
    assert said in refusal(name, value)
    with pytest.raises(IqlRosError, match=f"parameter '{name}' is"):
        Settings(**{name: value})


def test_what_the_system_does_not_permit_is_said_with_the_remedy() -> None:
    warnings = apply(Settings(cpus="4000"))
    assert len(warnings) == 1
    assert "not permitted" in warnings[0]
    assert "cpus 4000: this machine allows" in warnings[0]


def test_the_incumbent_is_compared_with_the_action_before(bench: Bench) -> None:
    incumbent = Incumbent(CONTRACT, bench.loaded.types)
    output = Output(CONTRACT, bench.loaded.types, "cmd")
    second_ns = 1_000_000_000
    incumbent.compare(0, np.array([0.1, 0.2]))
    incumbent.put("cmd", 10, output.write(0, np.array([0.0, 0.5])))
    incumbent.compare(20, np.array([9.0, 9.0]))
    incumbent.compare(30 * second_ns, None)  # the incumbent's last word is too old
    vx, wz = incumbent.differences
    assert (vx.count, wz.count) == (1, 1)
    assert vx.bias == pytest.approx(0.1)
    assert wz.bias == pytest.approx(-0.3)
    assert wz.largest == pytest.approx(0.3)


def test_a_transition_that_raises_is_told_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    context = Context()
    rclpy.init(context=context, args=[])
    node = ControllerNode(context=context)
    try:
        state = LifecycleState(label="unconfigured", state_id=1)
        assert node.on_activate(state) == TransitionCallbackReturn.ERROR
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    finally:
        node.destroy_node()
        context.try_shutdown()
    told = capfd.readouterr().err
    assert "in on_activate" in told
    assert "parameter 'bundle' is empty" in told


def test_a_topic_that_two_aliases_read_is_recorded_once(bench: Bench) -> None:
    keys = CONTRACT.canonical()
    keys["topics"]["slow"] = {**keys["topics"]["odom"], "max_age_s": 1.0}
    keys["observations"][1]["topic"] = "slow"
    bundle = replace(bench.loaded.bundle, contract=Contract.model_validate(keys))
    kept: list[str] = []

    class Tape:
        def put(self, topic: str, t_ns: int, payload: bytes) -> None:
            kept.append(topic)

    loop = Loop(
        replace(bench.loaded, bundle=bundle),
        bench.settings,
        time.time_ns,
        bench._publish,
        bench.log,
        None,
        recorder=Tape(),  # type: ignore[arg-type]
    )
    loop.receive("odom", bench.odom)
    loop.receive("slow", bench.odom)
    assert kept == ["/odom"]
    loop.close()


@pytest.mark.parametrize("is_told", [True, False])
def test_the_emergency_stop_is_heard_whether_or_not_rclpy_tells_who_spoke(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    heard: list[tuple[object, object]] = []
    if not is_told:  # as in Humble, whose subscriptions call with the message alone
        monkeypatch.delattr(operation.Subscription, "CallbackType")
    callback = operation._callback(lambda message, info: heard.append((message, info)))
    callback("stop", {"a": 1}) if is_told else callback("stop")
    assert heard == [("stop", {"a": 1} if is_told else {})]
