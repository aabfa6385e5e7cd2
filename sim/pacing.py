"""Episodes in real time: the world advances on the wall clock while messages are served.

No rclpy: what spins, publishes and logs is the node's, see `sim.node`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from iql_ros.errors import IqlRosError
from iql_ros.sampler import SECOND_NS
from sim.judge import Outcome

COMMANDS_TO_ALIGN = 8
SETTLE_S = 1.0
"""For the middleware to find who else is there."""
LARGEST_LAG_NS = 200_000_000  # a host this late gives up the lost time instead of racing after it


class Stopped(Exception):
    """SIGINT or SIGTERM arrived."""


class Simulation:
    """Paces the world, one episode after the other."""

    def __init__(self, node: Any, spin: Callable[[float], object]) -> None:
        """Begins to count the time."""
        self._node, self._world = node, node.world
        self._spin = spin
        self._period_ns = int(self._world.file.period_ns / node.speed)
        self._due_ns = time.monotonic_ns()
        self._stopping = False
        self.phase = 0
        self.results: list[Outcome] = []

    @property
    def out_of_step(self) -> int:
        """Commands that came after another sensor period than in lockstep.

        One that takes longer does, and all that follow a message of the trigger that was lost: the
        controller counts those that it gets.
        """
        return sum(n % self._world.every != self.phase for n in self._node.answered)

    def stop(self, *_: object) -> None:
        """Makes `run` raise Stopped soon; a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Waits for commands, then runs all episodes.

        Raises:
            IqlRosError: no command came in time.
            Stopped: a signal arrived.
        """
        self._wait_for_commands()
        self._align()
        for episode in range(self._node.episodes):
            self.results.append(self._run_episode(episode))

    def _wait_for_commands(self) -> None:
        """Until there are enough to see when they come."""
        node = self._node
        began = time.monotonic()
        deadline = began + node.wait_s
        node.get_logger().info(f"waiting for the first command on {node.command_topic}")
        while len(node.answered) < COMMANDS_TO_ALIGN or time.monotonic() - began < SETTLE_S:
            if time.monotonic() > deadline and not node.answered:
                raise IqlRosError(
                    f"no command on {node.command_topic} within {node.wait_s:g} s: is the "
                    f"controller active, not in shadow mode, and in ROS domain "
                    f"{domain()}?"
                )
            self._period()
            if self._world.outcome() is not None:
                self._world.reset(0)
        node.refuse_company()

    def _align(self) -> None:
        """Goes on until the next message is one at which the controller decides.

        An episode's first message is such a one in lockstep. What came until now, the first
        command with its discovery among it, is no measurement.
        """
        node, every = self._node, self._world.every
        # Commands come late, never early: the phase from which the least lateness results.
        lateness = [sum((n - phase) % every for n in node.answered) for phase in range(every)]
        self.phase = lateness.index(min(lateness))
        while (node.periods + 1) % every != self.phase:
            self._period()
        node.answered.clear()
        node.latencies_us.clear()

    def _run_episode(self, episode: int) -> Outcome:
        self._world.reset(episode)
        while (result := self._world.outcome()) is None:
            self._period()
        self._node.refuse_company()  # again, as the middleware finds others in its own time
        self._node.get_logger().info(
            f"episode {episode}: {result.ending} after {result.duration_s:.2f} s, "
            f"return {result.total_reward:.1f}"
        )
        return result

    def _period(self) -> None:
        """Lets one sensor period pass."""
        self._wait_until_due()
        self._node.publish(self._world.advance())

    def _wait_until_due(self) -> None:
        """Handles messages until the next sensor instant; every wait is bounded."""
        self._due_ns += self._period_ns
        self._spin(0.0)
        while (left_ns := self._due_ns - time.monotonic_ns()) > 0:
            if self._stopping:
                raise Stopped
            self._spin(min(left_ns / SECOND_NS, 0.1))
        if self._stopping:
            raise Stopped
        if left_ns < -LARGEST_LAG_NS:
            self._due_ns = time.monotonic_ns()
            self._node.get_logger().warning(
                f"the host is too slow for speed {self._node.speed:g}: lower it",
                throttle_duration_sec=5.0,
            )


def results_of(node: Any, simulation: Simulation) -> dict[str, Any]:
    """Outcomes and latencies as JSON has them.

    A latency counts from the newest sensor period, so one above that (of the arm 10 ms divided
    by the speed) shows up reduced by whole periods, and counts as out of step.
    """
    results = simulation.results
    latencies = np.array(node.latencies_us)
    quantiles = {
        f"p{percent}": round(float(np.percentile(latencies, percent)), 1)
        for percent in (50, 90, 99, 100)
        if latencies.size
    }
    return {
        "world": node.world_source,
        "seed": node.seed,
        "speed": node.speed,
        "finished": len(results) == node.episodes,
        "success_rate": float(np.mean([r.success for r in results])) if results else None,
        "episodes": [asdict(result) for result in results],
        "latency_us": {"commands": latencies.size, **quantiles},
        "out_of_step": simulation.out_of_step,
        "sensor_period_ms": node.world.file.period_ns / node.speed / 1e6,
    }


def domain() -> str:
    """ROS_DOMAIN_ID."""
    return os.environ.get("ROS_DOMAIN_ID", "0")
