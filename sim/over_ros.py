"""ROS in the loop: the simulator and the real controller node as two processes over DDS.

They meet in a domain of their own on the loopback, so that no robot hears the commands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iql_ros.bundle import load_bundle
from iql_ros.errors import IqlRosError
from sim.world_file import load_world_file

START_S = 60.0
"""For both processes to start, find each other and load the policy, on a busy machine."""
PATIENCE_S = 20.0
TAIL = 12


def play(
    bundle: Path,
    world: str,
    *,
    episodes: int,
    out: Path,
    seed: int = 0,
    speed: float = 1.0,
    domain: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Plays nominal episodes over ROS in real time, and the same in lockstep.

    Args:
        bundle: folder of the bundle.
        world: a world file, or the name of a shipped world.
        out: folder for `over_ros.json` and the logs of both processes.
        speed: simulated seconds per second.
        domain: ROS_DOMAIN_ID of both; by default one that is not this shell's.
        tell: hears the simulator's last line, while it runs.

    Returns:
        What `over_ros.json` holds: outcomes, latencies, and `against_lockstep`.

    Raises:
        IqlRosError: one of the two failed; says why, from its log.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    results = out / "over_ros.json"
    results.unlink(missing_ok=True)
    file, _ = load_world_file(world)
    load_bundle(bundle)  # its faults are told here, not from a log
    if Path(world).exists():
        world = str(Path(world).absolute())
    limit_s = START_S + 2.0 * episodes * file.time_limit_s / speed
    parameters: dict[str, object] = {
        "world": world,
        "bundle": bundle.absolute(),
        "episodes": episodes,
        "seed": seed,
        "speed": speed,
        "results": results,
        "wait_s": START_S,
    }
    simulator = [sys.executable, "-m", "sim.node", "--ros-args"]
    simulator += [part for k, v in parameters.items() for part in ("-p", f"{k}:={v}")]
    # onnx as in the lockstep run: what differs then is ROS.
    controller = [sys.executable, "-m", "iql_ros.cli", "run", str(bundle.absolute())]
    controller += ["--mode", "active", "--sim-time", "--", "-p", "backend:=onnx"]
    controller += ["-p", f"black_box:={out / 'black_box'}"]
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(another_domain() if domain is None else domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix),
        "PYTHONUNBUFFERED": "1",
    }
    with _Pair(out, environment) as pair:
        pair.start("controller", controller)
        pair.start("simulator", simulator)
        pair.wait("simulator", limit_s, tell)
    if not results.exists():
        raise IqlRosError(f"the simulator left no results: see {out / 'simulator.log'}")
    found: dict[str, Any] = json.loads(results.read_text())
    return found


def another_domain() -> int:
    """A ROS domain other than this shell's, where a robot may listen."""
    chosen = 1 + os.getpid() % 100  # 0 to 101 are free of the system's own ports
    return chosen if str(chosen) != os.environ.get("ROS_DOMAIN_ID", "0") else chosen + 1


class _Pair:
    """Processes that end together; their output goes to NAME.log in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Pair:
        return self

    def start(self, name: str, command: Sequence[str]) -> None:
        with (self._folder / f"{name}.log").open("w") as log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment
            )

    def wait(self, name: str, limit_s: float, tell: Callable[[str], None]) -> None:
        """Until `name` has ended; raises if it failed, or another did meanwhile."""
        end_s = time.monotonic() + limit_s
        process = self._running[name]
        while process.poll() is None:
            for other, running in self._running.items():
                if other != name and running.poll() is not None:
                    raise self._failed(other, f"the {other} ended with exit code {running.poll()}")
            if time.monotonic() > end_s:
                raise self._failed(name, f"the {name} has not ended within {limit_s:.0f} s")
            lines = self._log(name).splitlines()
            tell(lines[-1] if lines else "")
            time.sleep(0.1)
        if process.returncode:
            raise self._failed(name, f"the {name} ended with exit code {process.returncode}")

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _failed(self, name: str, what: str) -> IqlRosError:
        tail = "\n".join(self._log(name).splitlines()[-TAIL:])
        return IqlRosError(f"{what}: see {self._folder / f'{name}.log'}, which ends with\n{tail}")

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")
