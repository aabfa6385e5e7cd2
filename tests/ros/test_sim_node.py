import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import PointStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from sim.behaviour import Arm  # noqa: E402

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

START_S = 60.0  # an upper bound for a busy machine; it takes 2 s


class Sim:
    """The simulator as a process."""

    def __init__(self, environment, **parameters):
        arguments = [part for k, v in parameters.items() for part in ("-p", f"{k}:={v}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sim.node", "--ros-args", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, timeout_s):
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def start():
    running = []

    def start(**parameters):
        running.append(Sim(dict(os.environ), **parameters))
        return running[-1]

    yield start
    for sim in running:
        sim.kill()


class Pilot:
    """A second ROS node, with real messages, that reaches straight for the target."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("pilot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publisher = self.node.create_publisher(
            Float64MultiArray, "/velocity_controller/commands", 10
        )
        self.node.create_subscription(JointState, "/joint_states", self.on_joints, 10)
        self.node.create_subscription(PointStamped, "/target", self.on_target, 10)
        self.node.create_subscription(Clock, "/clock", self.on_clock, 10)
        self.arm = Arm()
        self.target = None
        self.talks = True
        self.joints = []
        self.clock_s = []

    def on_target(self, message):
        self.target = np.array([message.point.x, message.point.y, message.point.z])

    def on_clock(self, message):
        self.clock_s.append(message.clock.sec + message.clock.nanosec * 1e-9)

    def on_joints(self, message):
        self.joints.append(message)
        if self.talks and self.target is not None and len(self.joints) % 5 == 0:
            command = self.arm.towards(np.array(message.position), self.target, 0.4)
            self.publisher.publish(Float64MultiArray(data=np.clip(command, -1.0, 1.0).tolist()))

    def spin_until(self, done, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, "timed out"
            self.executor.spin_once(timeout_sec=0.1)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def pilot():
    pilot = Pilot()
    yield pilot
    pilot.close()


def test_a_pilot_over_ros_reaches_the_targets_and_the_results_say_so(start, pilot, tmp_path):
    results = tmp_path / "results.json"
    sim = start(episodes=2, seed=3, speed=2.0, results=results)
    pilot.spin_until(lambda: sim.process.poll() is not None, START_S)
    code, output = sim.finish(1)
    assert code == 0, output
    content = json.loads(results.read_text())
    assert content["finished"]
    assert content["success_rate"] == 1.0
    assert [episode["episode"] for episode in content["episodes"]] == [0, 1]
    assert all(0 < episode["steps"] < 60 for episode in content["episodes"])
    assert content["latency_us"]["commands"] > 10
    assert 0 < content["latency_us"]["p50"] < 1e5
    steps_s = np.diff(pilot.clock_s)
    assert np.median(steps_s) == pytest.approx(0.01)
    names = set(map(tuple, (message.name for message in pilot.joints)))
    assert names == {("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")}


def test_the_arm_stops_when_its_commands_go_silent(start, pilot):
    sim = start(episodes=1, seed=3, speed=2.0)

    def moves():
        return bool(pilot.joints) and max(np.abs(pilot.joints[-1].velocity)) > 0.2

    pilot.spin_until(moves, START_S)
    pilot.talks = False
    before = len(pilot.joints)
    pilot.spin_until(lambda: len(pilot.joints) > before + 80, 30.0)  # 0.8 s of simulated time
    assert max(np.abs(pilot.joints[-1].velocity)) < 0.05
    assert sim.process.poll() is None


def test_no_command_in_time_is_an_error_that_says_what_to_look_at(start):
    sim = start(wait_s=0.3)
    code, output = sim.finish(START_S)
    assert code == 1
    assert "no command on /velocity_controller/commands within 0.3 s" in output
    assert "shadow mode" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_simulator_cleanly_with_partial_results(start, pilot, tmp_path, number):
    results = tmp_path / "results.json"
    sim = start(episodes=1000, results=results)
    pilot.spin_until(lambda: bool(pilot.joints), START_S)
    sim.process.send_signal(number)
    code, output = sim.finish(20)
    assert code == 0, output
    assert json.loads(results.read_text())["finished"] is False


def test_a_speed_of_zero_is_refused(start):
    code, output = start(speed=0.0).finish(START_S)
    assert code == 1
    assert "parameter speed is 0.0: must be above 0" in output


def test_a_mistyped_parameter_is_refused_with_the_nearest_name(start):
    code, output = start(episdes=3).finish(START_S)
    assert code == 1
    assert "parameter 'episdes' is none of this node's: did you mean 'episodes'?" in output
