"""`iql-ros demo`: the verbs that a user would type, one after the other, and one table.

Every step is a process of its own, and what it leaves behind is what the next one reads. A
step whose result is already there is not repeated, so an interrupted demo goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from iql_ros.statistics import difference_interval, wilson_interval

ROBOT = "arm6"
BEHAVIOUR_EPISODES = 1400
EPISODES = 100
SPEED = 5.0
"""Simulated seconds per second while the success rate is counted."""
LATENCY_EPISODES = 8
"""Episodes at real time, for the latency."""
TRAINING = {
    "bc": ["--steps", "8000"],
    # In lockstep 297 of 300 reached with these, 194 of 200 with a discount of 0.99: an episode
    # takes some 25 steps.
    "iql": [
        *("--steps", "12000", "--set", "discount=0.95"),
        *("--set", "expectile=0.8", "--set", "inverse_temperature=6"),
    ],
}
DOMAIN = 91
SEED = 7


@dataclass(frozen=True)
class Outcome:
    """How one controller did: per episode, shape (N,), whether it reached, return and seconds."""

    reached: np.ndarray[Any, np.dtype[np.bool_]]
    returns: np.ndarray[Any, np.dtype[np.float64]]
    seconds: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def of(cls, episodes: Sequence[dict[str, Any]]) -> Outcome:
        """From the episodes of a results file."""
        return cls(
            np.array([episode["success"] for episode in episodes], bool),
            np.array([episode["total_reward"] for episode in episodes], float),
            np.array([episode["duration_s"] for episode in episodes], float),
        )

    def summary(self) -> dict[str, float]:
        """The figures of `summary.json`."""
        reached_s = self.seconds[self.reached]
        low, high = wilson_interval(int(self.reached.sum()), len(self.reached))
        return {
            "episodes": len(self.reached),
            "successes": int(self.reached.sum()),
            "success_low": low,
            "success_high": high,
            "mean_return": float(self.returns.mean()),
            "mean_seconds_to_reach": float(reached_s.mean()) if len(reached_s) else float("nan"),
        }


def run_demo(out: Path, *, fresh: bool) -> None:
    """Runs all steps in the folder `out` and prints the table.

    Raises:
        IqlRosError: a step failed; the message names its log.
    """
    started = time.monotonic()
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    demo = _Demo(out, console)
    demo.step(
        "record logs of mixed-quality operators",
        "logs/summary.json",
        [["record", "--out", "logs", "--episodes", str(BEHAVIOUR_EPISODES)]],
    )
    demo.step(
        "convert the bags", "arm.h5", [["convert", "logs", "--contract", ROBOT, "--out", "arm.h5"]]
    )
    demo.step(
        "train BC and IQL, one core each",
        "trained",
        [_train(out, kind, settings) for kind, settings in TRAINING.items()],
        mark=True,
    )
    for kind in TRAINING:
        demo.step(f"export {kind}", f"bundle_{kind}", [["export", kind, "--out", f"bundle_{kind}"]])
    for kind in TRAINING:
        demo.closed_loop(kind, f"closed_loop_{kind}.json", EPISODES, SPEED)
    demo.closed_loop("iql", "latency.json", LATENCY_EPISODES, 1.0)
    _report(out, console, time.monotonic() - started)


def _train(out: Path, kind: str, settings: Sequence[str]) -> list[str]:
    """The verb that trains, or goes on from the checkpoint of an interrupted training."""
    begun = ["--resume"] if (out / kind / "checkpoint.pt").exists() else ["--force"]
    return ["train", "arm.h5", "--out", kind, "--algorithm", kind, *settings, *begun]


class _Demo:
    """Runs steps in a folder, skipping those that are done."""

    def __init__(self, out: Path, console: Console) -> None:
        self._out = out
        self._console = console

    def step(
        self, what: str, result: str, verbs: Sequence[Sequence[str]], mark: bool = False
    ) -> None:
        """Runs verbs side by side, unless `result` is there; with `mark`, makes it at the end."""
        if (self._out / result).exists():
            self._console.print(f"[green]done[/]  {what}")
            return
        for verb in verbs:
            self._console.print(f"[bold]run[/]   {what}: iql-ros {' '.join(verb)}")
        began = time.monotonic()
        with self._processes() as start:
            names = [f"{verb[0]}_{verb[3]}" if len(verbs) > 1 else verb[0] for verb in verbs]
            running = [
                (start(name, [sys.executable, "-m", "iql_ros.cli", *verb]), name)
                for name, verb in zip(names, verbs, strict=True)
            ]
            for process, name in running:
                self._wait(process, name, 600)
        if mark:
            (self._out / result).touch()
        self._console.print(f"      {time.monotonic() - began:.0f} s")

    def closed_loop(self, kind: str, result: str, episodes: int, speed: float) -> None:
        """Simulator and controller as two processes over DDS on the loopback."""
        what = f"{kind} drives the arm over ROS 2, {episodes} episodes at {speed:g} x real time"
        if (self._out / result).exists():
            self._console.print(f"[green]done[/]  {what}")
            return
        self._console.print(f"[bold]run[/]   {what}")
        began = time.monotonic()
        simulator = [sys.executable, "-m", "sim.node", "--ros-args"]
        parameters = {"episodes": episodes, "speed": speed, "seed": 1000 + SEED, "results": result}
        for name, value in parameters.items():
            simulator += ["-p", f"{name}:={value}"]
        controller = [sys.executable, "-m", "iql_ros.cli", "run", f"bundle_{kind}", "--sim-time"]
        controller += ["--mode", "active", "--contract", ROBOT]
        with self._processes() as start:
            start(f"controller_{kind}", controller)
            self._wait(start(f"simulator_{kind}", simulator), f"simulator_{kind}", 900 / speed + 60)
        if not (self._out / result).exists():
            raise IqlRosError(f"the simulator left no results: see {self._out}/log")
        self._console.print(f"      {time.monotonic() - began:.0f} s")

    def _wait(self, process: subprocess.Popen[bytes], name: str, timeout_s: float) -> None:
        """Waits for a process, showing the last line it wrote; raises if it failed."""
        log = self._out / "log" / f"{name}.txt"
        deadline = time.monotonic() + timeout_s
        with self._console.status("") as status:
            while (code := process.poll()) is None:
                if time.monotonic() > deadline:
                    raise IqlRosError(f"no end after {timeout_s:.0f} s: see {log}")
                lines = log.read_text(errors="replace").splitlines() or [""]
                status.update(escape(f"{name}: {lines[-1][-100:]}"))
                time.sleep(0.2)
        if code:
            tail = "\n".join(log.read_text().splitlines()[-8:])
            raise IqlRosError(f"a step failed with exit code {code}: see {log}\n{tail}")

    @contextmanager
    def _processes(self) -> Iterator[Any]:
        """Starts processes in the demo's folder, and ends those that are left."""
        running: list[subprocess.Popen[bytes]] = []
        logs: list[TextIO] = []
        (self._out / "log").mkdir(exist_ok=True)

        def start(name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
            log = (self._out / "log" / f"{name}.txt").open("w")
            logs.append(log)
            process = subprocess.Popen(
                command, cwd=self._out, stdout=log, stderr=log, env=_environment()
            )
            running.append(process)
            return process

        try:
            yield start
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
            for log in logs:
                log.close()


def _environment() -> dict[str, str]:
    """Loopback only, a domain of its own, one thread each."""
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _report(out: Path, console: Console, seconds: float) -> None:
    logs = json.loads((out / "logs" / "summary.json").read_text())
    outcomes = {"behaviour": Outcome.of(logs["episodes"])}
    for kind in TRAINING:
        results = json.loads((out / f"closed_loop_{kind}.json").read_text())
        outcomes[kind] = Outcome.of(results["episodes"])
    latency = json.loads((out / "latency.json").read_text())["latency_us"]
    summary: dict[str, Any] = {name: outcome.summary() for name, outcome in outcomes.items()}
    summary["latency_us"] = {"p50": latency["p50"], "p99": latency["p99"]}
    summary["seconds"] = round(seconds, 1)
    summary["margins"] = {
        other: _margins(outcomes["iql"], outcomes[other]) for other in ("behaviour", "bc")
    }
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")

    table = Table("controller", "reached", "95 % interval", "mean return", "time to reach")
    for name in outcomes:
        row = summary[name]
        table.add_row(
            name,
            f"{row['successes']} of {row['episodes']}",
            f"{row['success_low']:.0%} to {row['success_high']:.0%}",
            f"{row['mean_return']:.1f}",
            f"{row['mean_seconds_to_reach']:.2f} s",
        )
    console.print(table)
    for other, margin in summary["margins"].items():
        low, high = margin["success_interval"]
        console.print(
            f"IQL reaches {margin['success']:+.0%} more than {other} "
            f"(95 % interval {low:+.0%} to {high:+.0%})"
        )
    console.print(
        f"joint state to command over DDS, real time: p50 {latency['p50']:.0f} us, "
        f"p99 {latency['p99']:.0f} us ({latency['commands']} commands)"
    )
    for what, where in {
        "bundle": "bundle_iql",
        "dataset report": "arm.report.html",
        "training curves": "iql",
        "logs of every process": "log",
        "this table": "summary.json",
    }.items():
        console.print(f"  {what}: {out / where}")
    console.print(f"took {seconds:.0f} s")


def _margins(ours: Outcome, other: Outcome) -> dict[str, Any]:
    """By how much ours is better, with 95 % intervals of the difference."""
    counts = [(int(o.reached.sum()), len(o.reached)) for o in (ours, other)]
    gap = float(ours.returns.mean() - other.returns.mean())
    spread = 1.96 * float(
        np.sqrt(sum(o.returns.var(ddof=1) / len(o.returns) for o in (ours, other)))
    )
    return {
        "success": counts[0][0] / counts[0][1] - counts[1][0] / counts[1][1],
        "success_interval": difference_interval(*counts),
        "return": gap,
        "return_interval": (gap - spread, gap + spread),
    }
