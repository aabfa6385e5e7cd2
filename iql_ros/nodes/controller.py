"""The process around the node: signals, executor, and an end that leaves the robot safe."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from iql_ros.errors import IqlRosError
from iql_ros.nodes.controller_node import ControllerNode

WAIT_S = 0.1
"""Unbounded waits miss a shutdown now and then."""
REFUSED = 78
"""Exit code where a restart would be refused again (EX_CONFIG of sysexits.h)."""
TEAR_DOWN_S = 5.0
"""For the middleware; safe command, black box and recording are out before."""


def main(args: Sequence[str] | None = None, *, autostart: bool = False) -> int:
    """Runs the node until SIGINT or SIGTERM; the last message sent is the safe command.

    Args:
        args: command line with ROS arguments; None for the process's own.
        autostart: configure and activate at once, without a lifecycle manager.

    Returns:
        Exit code: 0 if it was asked to stop; `REFUSED` if arguments, contract, bundle or gate do
        not permit it to run; 1 if anything else went wrong, such as a bug in a callback.
    """
    stop = threading.Event()
    # Before the middleware starts: who dies within it stays in the others' graph for 20 s.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # The default handlers invalidate the context first: no last command could be sent.
    given = None if args is None else [*args]
    try:
        rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:
        return _refused(error)
    try:
        node = ControllerNode()
    except (ParameterException, IqlRosError) as error:
        rclpy.shutdown()
        return _refused(error)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 1
    try:
        if not autostart or _start(node, stop):
            while not stop.is_set():
                _serve(node, executor)
            code = 0
        elif node.refusal is not None:
            code = REFUSED
    except Exception:  # a bug in a callback: stop as if asked to, and say what it was
        node.get_logger().fatal(traceback.format_exc())
    finally:
        node.stop()
        _tear_down(node, executor)
    return code


def _refused(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return REFUSED


def _serve(node: ControllerNode, executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin_once(timeout_sec=WAIT_S)
    except rclpy_implementation.RCLError as error:
        # Jazzy raises this for a transition that the state does not have: no reason to die.
        node.get_logger().error(f"refused: {error}")


def _start(node: ControllerNode, stop: threading.Event) -> bool:
    """Configures and activates, unless it is to stop meanwhile; whether it could."""
    success = TransitionCallbackReturn.SUCCESS
    if node.trigger_configure() != success:
        return False
    return stop.is_set() or bool(node.trigger_activate() == success)


def _tear_down(node: ControllerNode, executor: SingleThreadedExecutor) -> None:
    # destroy_node can spin for ever when peers stop together, and keeps the interpreter meanwhile:
    # no thread or handler of ours would run. A second signal ends it, or this alarm, which says
    # where it hung.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    node.end()
    faulthandler.dump_traceback_later(TEAR_DOWN_S, exit=True)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    raise SystemExit(main())
