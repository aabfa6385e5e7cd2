"""Publishes joint states at 100 Hz until it is ended; a process that a test can stop or kill."""

from __future__ import annotations

import contextlib

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import JointState


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("talker")
    publisher = node.create_publisher(JointState, "/joint_states", 10)
    message = JointState(name=["a", "b"], position=[1.0, -1.0], velocity=[0.5, 0.5])

    def talk() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(0.01, talk)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
