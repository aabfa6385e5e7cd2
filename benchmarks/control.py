"""The controller node as a robot has it: two processes over DDS, at 100 and 500 Hz.

State to action, beside a no-op rclpy node of the same topics, QoS and executor; they take turns
of a second. Lateness of clock-driven ticks, beside a bare loop of absolute deadlines at the same
time. CPU per tick and resident memory of the controller's process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from benchmarks._control_bundle import JOINTS, write_arm_bundle
from benchmarks._report import parse_arguments, progress, report
from iql_ros.nodes.diagnostics import KEPT

RATES_HZ = (100, 500)
CONTESTANTS = ("ours", "noop")
LOST_S = 0.2
PHASES = 8
QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Driver:
    """Sends joint states, and waits for the answer to each.

    It waits on a wait set that is made before it sends: rclpy's executor, which makes one after,
    would hide the first 0.2 ms of an answer and add as much to a later one.
    """

    def __init__(self) -> None:
        self.node = rclpy.create_node("driver")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._message = JointState(name=list(JOINTS), position=[0.1] * 6, velocity=[0.2] * 6)
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._publishers, self._answers = {}, {}
        for name in CONTESTANTS:
            self._publishers[name] = self.node.create_publisher(JointState, f"/{name}/joints", QOS)
            self._answers[name] = self.node.create_subscription(
                Float64MultiArray, f"/{name}/command", lambda _: None, QOS, raw=True
            )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)
        context = self.node.context.handle
        assert context is not None
        self._waiting = rclpy_implementation.WaitSet(1, 0, 0, 0, 0, 0, context)

    def _hear(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {pair.key: pair.value for pair in status.values}

    def ask(self, name: str) -> float | None:
        """Microseconds from a state sent to the command received; None if none came."""
        self._message.header.stamp = self.node.get_clock().now().to_msg()
        handle, publisher = self._answers[name].handle, self._publishers[name]
        while handle.take_message(Float64MultiArray, True) is not None:
            pass  # an answer to an earlier question
        self._waiting.clear_entities()
        self._waiting.add_subscription(handle)
        sent_s = time.perf_counter()
        publisher.publish(self._message)
        self._waiting.wait(round(LOST_S * 1e9))
        answered_s = time.perf_counter()
        if handle.take_message(Float64MultiArray, True) is None:
            return None
        return (answered_s - sent_s) * 1e6

    def block(self, name: str, rate_hz: int, seconds: float) -> list[float | None]:
        """Asks at a rate; an answer that is later than the next question delays that."""
        deadline_s = time.perf_counter()
        answers = []
        for _ in range(int(rate_hz * seconds)):
            deadline_s = max(deadline_s + 1 / rate_hz, time.perf_counter())
            time.sleep(max(0.0, deadline_s - time.perf_counter()))
            answers.append(self.ask(name))
        return answers

    def feed(self, seconds: float) -> None:
        """Sends joint states to the controller at 100 Hz, whatever comes back."""
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            self._publishers["ours"].publish(self._message)
            self._executor.spin_once(timeout_sec=0)
            time.sleep(0.01)


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    rounds, seconds = (3, 1.0) if arguments.quick else (30, 1.0)
    rclpy.init()
    driver = Driver()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        triggered = write_arm_bundle(
            out / "t", {"trigger": "joints"}, "/ours/joints", "/ours/command"
        )
        with controller(triggered, out) as process, peer("noop", "/noop/joints", "/noop/command"):
            for name in CONTESTANTS:
                await_answer(driver, name)
            for rate_hz in RATES_HZ:
                progress(f"state to action at {rate_hz} Hz")
                measure_latency(driver, process.pid, rate_hz, rounds, seconds, figures)
        for rate_hz in RATES_HZ:
            progress(f"lateness at {rate_hz} Hz")
            clocked = write_arm_bundle(
                out / str(rate_hz), {"rate_hz": rate_hz}, "/ours/joints", "/ours/command"
            )
            with controller(clocked, out):
                # The node's percentiles are of its last `KEPT` ticks: all of them beside the loop.
                late_s = 6.0 if arguments.quick else KEPT / rate_hz + 5.0
                measure_lateness(driver, rate_hz, late_s, figures)
    driver.node.destroy_node()
    rclpy.shutdown()
    report("control", arguments.quick, dict(figures))


def measure_latency(
    driver: Driver,
    pid: int,
    rate_hz: int,
    rounds: int,
    seconds: float,
    figures: dict[str, dict[str, Any]],
) -> None:
    """Adds p50 and p99 of both and their ratios, CPU per tick and resident size."""
    asked: dict[str, list[float | None]] = {name: [] for name in CONTESTANTS}
    cpu_s = 0.0
    for _ in range(rounds):
        for name in CONTESTANTS:
            before_s = cpu_of(pid)
            asked[name] += driver.block(name, rate_hz, seconds)
            if name == "ours":
                cpu_s += cpu_of(pid) - before_s
    key = f"{rate_hz}_hz"
    quantiles = {}
    for name in CONTESTANTS:
        answers = [answer for answer in asked[name] if answer is not None]
        p50, p99 = (float(np.quantile(answers, q)) for q in (0.5, 0.99))
        quantiles[name] = (p50, p99)
        add(figures, f"{name}_p50_us", key, round(p50, 1))
        add(figures, f"{name}_p99_us", key, round(p99, 1))
        add(figures, f"{name}_lost", key, len(asked[name]) - len(answers))
    for i, ratio in enumerate(("p50_ratio", "p99_ratio")):
        add(figures, ratio, key, round(quantiles["ours"][i] / quantiles["noop"][i], 3))
    add(figures, "cpu_per_tick_us", key, round(1e6 * cpu_s / len(asked["ours"]), 1))
    add(figures, "rss_mb", key, round(resident_mb(pid), 1))


def measure_lateness(
    driver: Driver, rate_hz: int, seconds: float, figures: dict[str, dict[str, Any]]
) -> None:
    """Adds the p99 of how late ticks and the bare loop's wake-ups are, and their ratio.

    Both have one rate, so a bare loop stays where it began between two ticks of the node: always
    in the way, or never. It begins anew `PHASES` times.
    """
    name = "iql_controller: loop"
    driver.diagnostics.clear()
    while "lateness_us p99" not in driver.diagnostics.get(name, {}):
        driver.feed(0.5)
    command = [sys.executable, "-m", "benchmarks._control_peers", "loop", str(rate_hz)]
    lateness_us: list[float] = []
    for i in range(PHASES):
        phase_s = i / PHASES / rate_hz
        with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would fill up
            arguments = [*command, str(seconds / PHASES), str(phase_s)]
            bare = subprocess.Popen(arguments, stdout=said, text=True)
            while bare.poll() is None:
                driver.feed(0.1)
            said.seek(0)
            lateness_us += json.load(said)
    bare_us = float(np.quantile(lateness_us, 0.99))
    driver.feed(1.1)  # the report after its end
    ours_us = float(driver.diagnostics[name]["lateness_us p99"])
    key = f"{rate_hz}_hz"
    add(figures, "lateness_p99_us", key, ours_us)
    add(figures, "bare_lateness_p99_us", key, round(bare_us, 1))
    add(figures, "lateness_p99_ratio", key, round(ours_us / bare_us, 3))


def add(figures: dict[str, dict[str, Any]], name: str, key: str, value: float) -> None:
    figures.setdefault(name, {})[key] = value


def await_answer(driver: Driver, name: str) -> None:
    until_s = time.perf_counter() + 60
    while driver.ask(name) is None:
        if time.perf_counter() > until_s:
            raise TimeoutError(f"{name} does not answer")


@contextmanager
def controller(bundle: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The node, active, in a process of its own."""
    options = ["--mode", "active", "--allow-ungated", "--", "-p", "backend:=onnx"]
    command = [sys.executable, "-m", "iql_ros.cli", "run", str(bundle), *options]
    with running(command, {**os.environ, "ROS_HOME": str(folder)}) as process:
        yield process


@contextmanager
def peer(*arguments: str) -> Iterator[None]:
    with running([sys.executable, "-m", "benchmarks._control_peers", *arguments], {**os.environ}):
        yield


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
