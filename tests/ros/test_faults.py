"""What goes wrong on a robot, over real DDS: the required outcome, and the time to the safe action.

docs/safety.md has the table. Bounds are the contract's, max_age and one tick, and SLACK_S for
this busy machine; `python -m benchmarks.faults` measures without.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String

from tests.ros.arm import BOUND_S, MAX_AGE_S, RATE_HZ, Arm, write_joints
from tests.ros.robot import LATCHED, Processes, processes_in, robot_on

pytestmark = [
    pytest.mark.ros,
    # lark, which rclpy imports for its type supports, uses a module that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]

POLICY = "iql_controller: policy"
TOPICS = "iql_controller: topics"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Arm, Processes]]:
    folder = tmp_path_factory.mktemp("faults")
    bundle = write_joints(folder / "bundle", {"rate_hz": RATE_HZ})
    with processes_in(folder) as processes:
        arm = Arm()
        processes.run(bundle)
        assert arm.until(arm.acts), processes.log()
        yield arm, processes
        arm.close()


@pytest.fixture
def arm(node: tuple[Arm, Processes]) -> Arm:
    node[0].settle()
    return node[0]


# -- a topic that dies, or is not what it should be --------------------------------------


def test_a_silent_topic(arm: Arm) -> None:
    arm.silence()
    assert arm.safe_within(arm.sent_s) < BOUND_S
    arm.settle()


def old(arm: Arm) -> JointState:
    return arm.sound(-10.0)


def ahead(arm: Arm) -> JointState:
    return arm.sound(+10.0)


def nan(arm: Arm) -> JointState:
    message = arm.sound()
    message.position[1] = math.nan
    return message


def fewer(arm: Arm) -> JointState:
    message = arm.sound()
    message.name, message.position, message.velocity = ["a"], [1.0], [0.5]
    return message


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (old, "s old, limit 0.20 s"),
        (ahead, "s old, limit 0.20 s"),
        (nan, "field 'q_b' is nan: not finite"),
        (fewer, "b"),
    ],
)
def test_a_message_that_is_not_sound(
    arm: Arm, make: Callable[[Arm], JointState], told: str
) -> None:
    began = time.monotonic()
    arm.make = lambda: make(arm)
    assert arm.safe_within(began) < BOUND_S
    assert arm.until(lambda: told in arm.diagnostics[POLICY][1])


def test_a_payload_that_is_garbage(arm: Arm) -> None:
    began = time.monotonic()
    arm.silence()
    arm.joints.publish(b"\x00\x01\x00\x00" + b"\xff" * 40)
    assert arm.safe_within(began) < BOUND_S
    arm.settle()


def test_reordered_joints_are_read_by_name(arm: Arm) -> None:
    before = arm.velocities[-1][1]

    def reordered() -> JointState:
        message = arm.sound()
        message.name, message.position = ["b", "c", "a"], [-1.0, 9.0, 1.0]
        message.velocity = [0.5, 9.0, 0.5]
        return message

    arm.make = reordered
    arm.spin(0.4)
    assert all(v == before for _, v in arm.velocities)


def test_a_slow_topic_acts_only_while_it_is_fresh(arm: Arm) -> None:
    arm.period_s = 2 * MAX_AGE_S
    assert arm.until(arm.is_safe)
    assert arm.until(arm.acts)  # by the next message
    assert arm.until(arm.is_safe)


def test_a_fast_and_a_bursting_topic_do_no_harm(arm: Arm) -> None:
    arm.period_s = 0.0
    began = time.monotonic()
    arm.velocities.clear()
    for _ in range(3):
        for _ in range(200):
            arm.joints.publish(arm.sound())
        arm.spin(0.1)
    assert all(any(v) for _, v in arm.velocities)
    # No tick is added; some were on their way.
    assert len(arm.velocities) < RATE_HZ * (time.monotonic() - began) + 10
    arm.settle()


def test_another_type_on_the_topic_changes_nothing_and_is_reported(arm: Arm) -> None:
    with robot_on(namespace="/stranger") as other:  # one process of Fast DDS has one type
        stranger = other.node.create_publisher(String, "/joint_states", 10)
        other.node.create_timer(0.02, lambda: stranger.publish(String(data="hello")))
        arm.settle()  # making the other held ours up for a moment
        told = "/joint_states is published as std_msgs/msg/String"
        assert arm.until(lambda: (other.spin(0.05), told in arm.diagnostics[TOPICS][1])[1])
    assert all(any(v) for _, v in arm.velocities)


def test_a_subscriber_whose_qos_does_not_fit_is_reported(arm: Arm) -> None:
    misfit = arm.node.create_subscription(
        Float64MultiArray,
        "/velocity",
        lambda _: None,
        LATCHED,
        event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
    )
    told = "/velocity: a subscriber does not fit, policy DURABILITY"
    assert arm.until(lambda: told in arm.diagnostics[TOPICS][1])
    assert arm.diagnostics[TOPICS][0] == 1
    arm.node.destroy_subscription(misfit)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_publisher_that_is_killed_or_stopped(arm: Arm, processes: Processes, number: int) -> None:
    arm.silence()
    assert arm.until(arm.is_safe)
    talker = processes("tests.ros.talker")
    assert arm.until(arm.acts), processes.log()
    talker.send_signal(number)
    assert arm.safe_within(time.monotonic()) < BOUND_S
    if number == signal.SIGSTOP:
        talker.send_signal(signal.SIGCONT)
        assert arm.until(arm.acts)


# -- the controller itself ---------------------------------------------------------------


def test_a_starved_controller_does_not_make_up_for_ticks(
    arm: Arm, node: tuple[Arm, Processes]
) -> None:
    process = node[1].running[0]
    process.send_signal(signal.SIGSTOP)
    arm.spin(1.0)
    arm.velocities.clear()
    process.send_signal(signal.SIGCONT)
    resumed = time.monotonic()
    assert arm.until(lambda: any(any(v) for _, v in arm.velocities))
    arm.spin(max(0.0, resumed + 0.3 - time.monotonic()))
    in_time = [t for t, _ in arm.velocities if t - resumed < 0.3]
    assert len(in_time) < 0.3 * RATE_HZ + 8  # 50 missed ticks would come at once
    loop = "iql_controller: loop"
    assert arm.until(lambda: int(arm.diagnostics[loop][2].get("late ticks", 0)) >= 40)


def test_an_emergency_stop_under_load(arm: Arm) -> None:
    arm.period_s = 0.0
    for _ in range(300):
        arm.joints.publish(arm.sound())
    pressed = time.monotonic()
    arm.press(stop=True)
    assert arm.safe_within(pressed) < 1.0
    arm.press(stop=False)
    arm.period_s = 0.01
    assert arm.until(lambda: arm.trigger("release")[0])
