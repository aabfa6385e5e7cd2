"""What the controller is measured against, each as a process of its own.

python -m benchmarks._control_peers noop JOINTS COMMAND
python -m benchmarks._control_peers loop RATE_HZ SECONDS PHASE_S
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time


def noop(joints: str, command: str) -> None:
    """An rclpy node that answers each joint state with six zeros, until it is ended."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    rclpy.init()
    node = rclpy.create_node("noop")
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(Float64MultiArray, command, qos)
    answer = Float64MultiArray(data=[0.0] * 6)
    node.create_subscription(JointState, joints, lambda _: publisher.publish(answer), qos)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


def loop(rate_hz: float, seconds: float, phase_s: float) -> None:
    """Sleeps to absolute deadlines and does nothing; prints its lateness in us as JSON.

    Deadlines are whole periods of the steady clock and `phase_s`. Under SCHED_FIFO it goes first,
    as the node's ticks do.
    """
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        above = os.sched_getparam(0).sched_priority + 1
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(above))
    period_s = 1 / rate_hz
    lateness_us = []
    start_s = (time.monotonic() // period_s + 1) * period_s + phase_s
    for k in range(1, int(seconds * rate_hz)):
        deadline_s = start_s + k * period_s
        time.sleep(max(0.0, deadline_s - time.monotonic()))
        lateness_us.append((time.monotonic() - deadline_s) * 1e6)
    print(json.dumps(lateness_us))


if __name__ == "__main__":
    if sys.argv[1] == "noop":
        noop(*sys.argv[2:])
    else:
        loop(*map(float, sys.argv[2:]))
