"""A simulated robot as a ROS 2 node: the topics of its contract, paced on the wall clock.

    python -m sim.node --ros-args -p episodes:=5 -p speed:=2.0 -p results:=results.json

`world` is a world file or the name of a shipped world, by default the arm. Nothing moves until
the first commands arrive. Then the episodes run one after the other, each beginning where the
controller decides, as in lockstep; a JSON file has their results and the latency of commands. With
`bundle` the same episodes then run in lockstep, and what differs is told (`sim.against_lockstep`).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from iql_ros.errors import IqlRosError, LogError
from iql_ros.files import write_text
from iql_ros.nodes.settings import refuse_unknown
from iql_ros.nodes.types import message_class
from iql_ros.nodes.wiring import qos_of
from iql_ros.sampler import SECOND_NS
from iql_ros.wire import Writer, make_types
from sim.against_lockstep import compare, in_words
from sim.pacing import Simulation, Stopped, domain, results_of
from sim.world import Message, load_world

CLOCK = "rosgraph_msgs/msg/Clock"


class SimNode(Node):
    """Publishes what the sensors say, and takes commands.

    Attributes:
        world: as the parameters `world` and `seed` say; commands go to it as they arrive.
        periods: sensor periods that were published.
        answered: of each command, how many had been published when it came.
        latencies_us: from the newest sensor period to each command.
    """

    def __init__(self) -> None:
        """Declares the parameters and creates the interfaces of the world's contract."""
        super().__init__("simulator")
        self._known: list[str] = []
        self.episodes = self._parameter("episodes", 10)
        self.seed = self._parameter("seed", 0)
        self.world_source = self._parameter("world", "arm6")
        self.world = load_world(self.world_source, self.seed)
        self.speed = self._parameter("speed", 1.0)
        self.results = self._parameter("results", "")
        self.wait_s = self._parameter("wait_s", 30.0)
        for name in ("episodes", "speed", "wait_s"):
            if getattr(self, name) <= 0:
                raise IqlRosError(f"parameter {name} is {getattr(self, name)}: must be above 0")
        self.bundle = self._parameter("bundle", "")
        refuse_unknown(self, self._known)
        self.latencies_us: list[float] = []
        self.answered: list[int] = []
        self.periods = 0
        self._published_ns = 0
        contract = self.world.contract
        self.command_topic = self.resolve_topic_name(contract.topics[contract.outputs[0]].topic)
        self._clock_writer = Writer(make_types({}), CLOCK, ["clock.sec", "clock.nanosec"])
        self._time = self.create_publisher(message_class(CLOCK), "/clock", 10)
        self._sensors: dict[str, Publisher[Any]] = {
            alias: self.create_publisher(
                message_class(topic.type), topic.topic, qos_of(topic, ReliabilityPolicy.RELIABLE)
            )
            for alias, topic in contract.topics.items()
            if alias in self.world.sensors
        }
        for alias in contract.outputs:
            topic = contract.topics[alias]
            self.create_subscription(
                message_class(topic.type),
                topic.topic,
                partial(self._receive, alias),
                qos_of(topic, ReliabilityPolicy.RELIABLE),
                raw=True,
            )

    def refuse_company(self) -> None:
        """Raises IqlRosError if somebody else publishes what the sensors say, or the time."""
        for publisher in (self._time, *self._sensors.values()):
            if self.count_publishers(publisher.topic_name) > 1:
                raise IqlRosError(
                    f"{publisher.topic_name} has another publisher: a robot or a second simulator "
                    f"is in ROS domain {domain()}; set ROS_DOMAIN_ID to one that is free"
                )

    def publish(self, messages: Sequence[Message]) -> None:
        """Publishes the clock and the messages of one sensor period, the trigger last."""
        seconds, ns = divmod(self.world.t_ns, SECOND_NS)
        self._time.publish(self._clock_writer.write(np.array([seconds, ns], np.float64)))
        for alias, _, payload in messages:
            self._published_ns = time.perf_counter_ns()
            self._sensors[alias].publish(payload)
        self.periods += 1

    def _receive(self, alias: str, payload: bytes) -> None:
        latency_ns = time.perf_counter_ns() - self._published_ns
        try:
            self.world.command({alias: payload})
        except LogError as error:
            self.get_logger().error(f"{self.command_topic}: {error}", throttle_duration_sec=1.0)
            return
        self.latencies_us.append(latency_ns / 1000)
        self.answered.append(self.periods)

    def _parameter(self, name: str, default: Any) -> Any:
        self._known.append(name)
        return self.declare_parameter(name, default).value


def main(args: list[str] | None = None) -> int:
    """Runs the simulator; returns the exit code."""
    # The default handlers would invalidate the context under a publisher in use.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        node = SimNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        simulation = Simulation(node, lambda seconds: executor.spin_once(timeout_sec=seconds))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, simulation.stop)
        try:
            simulation.run()
        except Stopped:
            node.get_logger().info("stopped by a signal")
        tell(node, simulation)
    except IqlRosError as error:
        print(f"sim.node: {error}", file=sys.stderr)
        return 1
    finally:
        # destroy_node can spin for ever when its peers leave at the same moment.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def tell(node: SimNode, simulation: Simulation) -> None:
    """Compares with lockstep if asked to, logs what differs, and writes the results."""
    results = results_of(node, simulation)
    if node.bundle and simulation.results:
        node.get_logger().info("the same episodes in lockstep")
        facts = compare(node.bundle, node.world_source, node.seed, simulation.results)
        results["against_lockstep"] = facts
        for line in in_words(facts, results):
            node.get_logger().info(line)
    if node.results:
        write_text(Path(node.results), json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
