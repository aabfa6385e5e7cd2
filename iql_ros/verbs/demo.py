"""`iql-ros demo`: the verbs that a user would type, one after the other, and one table.

Every step is a process of its own, and what it leaves behind is what the next one reads. A
step whose result is already there is not repeated, so an interrupted demo goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
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

from iql_ros.bundle import load_bundle
from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from iql_ros.statistics import difference_interval, wilson_interval
from iql_ros.verbs.recipes import OverRos, Recipe

DOMAIN = 91
SEED = 7
GATE_FAILED = 2
"""Exit code of `iql-ros gate` when a criterion does not hold."""


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


def run_demo(recipe: Recipe, out: Path, *, fresh: bool) -> bool:
    """Runs all steps in the folder `out` and prints the table.

    Returns:
        Whether the IQL policy passed its gate.

    Raises:
        IqlRosError: a step failed; the message names its log.
    """
    started = time.monotonic()
    # To be ended is to end the steps first, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    demo = _Demo(recipe, out, console)
    data, robot = recipe.dataset, recipe.robot
    demo.step(
        "record logs of mixed-quality operators",
        "logs/summary.json",
        [["record", "--out", "logs", "--robot", robot, "--episodes", str(recipe.recorded)]],
    )
    demo.step("convert the bags", data, [["convert", "logs", "--contract", robot, "--out", data]])
    demo.step(
        "train BC and IQL, one core each",
        "trained",
        [_train(out, data, kind, settings) for kind, settings in recipe.training.items()],
        mark=True,
    )
    for kind in recipe.training:
        demo.step(f"export {kind}", f"bundle_{kind}", [["export", kind, "--out", f"bundle_{kind}"]])
    for kind in recipe.training:
        demo.drive(kind, f"closed_loop_{kind}.json")
    if recipe.over_ros is not None:
        demo.measure_latency(recipe.over_ros)
    demo.step(
        "gate: IQL in every scenario",
        "bundle_iql/gate.json",
        [["gate", "bundle_iql", "--suite", recipe.suite]],
        may_exit=(0, GATE_FAILED),
    )
    return _report(recipe, out, console, time.monotonic() - started)


def _train(out: Path, data: str, kind: str, settings: Sequence[str]) -> list[str]:
    """The verb that trains, or goes on from the checkpoint of an interrupted training."""
    begun = ["--resume"] if (out / kind / "checkpoint.pt").exists() else ["--force"]
    return ["train", data, "--out", kind, "--algorithm", kind, *settings, *begun]


class _Demo:
    """Runs steps in a folder, skipping those that are done."""

    def __init__(self, recipe: Recipe, out: Path, console: Console) -> None:
        self._recipe = recipe
        self._out = out
        self._console = console

    def step(
        self,
        what: str,
        result: str,
        verbs: Sequence[Sequence[str]],
        mark: bool = False,
        may_exit: Sequence[int] = (0,),
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
                self._wait(process, name, 600, may_exit)
        if mark:
            (self._out / result).touch()
        self._console.print(f"      {time.monotonic() - began:.0f} s")

    def drive(self, kind: str, result: str) -> None:
        """Lets a bundle drive nominal episodes, as the recipe says: over ROS, or in lockstep."""
        recipe, ros = self._recipe, self._recipe.over_ros
        if ros is not None:
            self._over_ros(kind, result, recipe.judged, ros.speed)
            return
        command = [sys.executable, "-m", "sim.nominal", f"bundle_{kind}", "--world", recipe.robot]
        command += ["--episodes", str(recipe.judged), "--seed", str(1000 + SEED)]
        command += ["--jobs", str(os.cpu_count() or 1), "--results", result]
        with self._doing(f"{kind} drives the {recipe.robot}, {recipe.judged} episodes", result) as (
            start
        ):
            if start is not None:
                self._wait(start(f"nominal_{kind}", command), f"nominal_{kind}", 900)

    def measure_latency(self, ros: OverRos) -> None:
        """From the triggering message to the command, at real time."""
        self._over_ros("iql", "latency.json", ros.latency_episodes, 1.0)

    def _over_ros(self, kind: str, result: str, episodes: int, speed: float) -> None:
        """Simulator and controller as two processes over DDS on the loopback."""
        robot = self._recipe.robot
        what = f"{kind} drives the {robot} over ROS 2, {episodes} episodes at {speed:g} x real time"
        simulator = [sys.executable, "-m", "sim.node", "--ros-args"]
        parameters = {"episodes": episodes, "speed": speed, "seed": 1000 + SEED, "results": result}
        for name, value in {"world": robot, **parameters}.items():
            simulator += ["-p", f"{name}:={value}"]
        controller = [sys.executable, "-m", "iql_ros.cli", "run", f"bundle_{kind}", "--sim-time"]
        controller += ["--mode", "active", "--contract", robot]
        with self._doing(what, result) as start:
            if start is not None:
                start(f"controller_{kind}", controller)
                running = start(f"simulator_{kind}", simulator)
                self._wait(running, f"simulator_{kind}", 900 / speed + 60)

    @contextmanager
    def _doing(self, what: str, result: str) -> Iterator[Any]:
        """Yields what starts processes that leave `result`; None if it is there."""
        if (self._out / result).exists():
            self._console.print(f"[green]done[/]  {what}")
            yield None
            return
        self._console.print(f"[bold]run[/]   {what}")
        began = time.monotonic()
        with self._processes() as start:
            yield start
        if not (self._out / result).exists():
            raise IqlRosError(f"no results were left: see {self._out}/log")
        self._console.print(f"      {time.monotonic() - began:.0f} s")

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        timeout_s: float,
        may_exit: Sequence[int] = (0,),
    ) -> None:
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
        if code not in may_exit:
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
                    process.wait()
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


def _report(recipe: Recipe, out: Path, console: Console, seconds: float) -> bool:
    """Writes `summary.json`, prints the table and the gate's verdict; whether it passed."""
    logs = json.loads((out / "logs" / "summary.json").read_text())
    outcomes = {"behaviour": Outcome.of(logs["episodes"])}
    for kind in recipe.training:
        results = json.loads((out / f"closed_loop_{kind}.json").read_text())
        outcomes[kind] = Outcome.of(results["episodes"])
    summary: dict[str, Any] = {name: outcome.summary() for name, outcome in outcomes.items()}
    summary["seconds"] = round(seconds, 1)
    summary["margins"] = {
        other: _margins(outcomes["iql"], outcomes[other]) for other in ("behaviour", "bc")
    }
    _print_table(recipe, summary, list(outcomes), console)
    if recipe.over_ros is not None:
        latency = json.loads((out / "latency.json").read_text())["latency_us"]
        summary["latency_us"] = {"p50": latency["p50"], "p99": latency["p99"]}
        console.print(
            f"joint state to command over DDS, real time: p50 {latency['p50']:.0f} us, "
            f"p99 {latency['p99']:.0f} us ({latency['commands']} commands)"
        )
    gate = load_bundle(out / "bundle_iql").gate
    assert gate is not None
    summary["gate"] = gate.verdict
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    colour = "green" if gate.verdict == "passed" else "red"
    console.print(
        f"gate: [{colour}]{gate.verdict}[/], {gate.episodes} episodes in "
        f"{len(gate.scenarios)} scenarios"
    )
    for scenario in gate.scenarios:
        for criterion in scenario.criteria:
            if not criterion.passed:
                console.print(f"  {scenario.name}: {escape(criterion.in_words())}")
    for what, where in {
        "bundle": "bundle_iql",
        "dataset report": str(Path(recipe.dataset).with_suffix(".report.html")),
        "training curves": "iql",
        "logs of every process": "log",
        "this table": "summary.json",
    }.items():
        console.print(f"  {what}: {out / where}")
    console.print(f"took {seconds:.0f} s")
    return gate.verdict == "passed"


def _print_table(
    recipe: Recipe, summary: dict[str, Any], names: Sequence[str], console: Console
) -> None:
    to_do, does, done = recipe.verb
    table = Table("controller", done, "95 % interval", "mean return", f"time to {to_do}")
    for name in names:
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
            f"IQL {does} {100 * margin['success']:+.0f} percentage points more than {other} "
            f"(95 % interval {100 * low:+.0f} to {100 * high:+.0f})"
        )


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
