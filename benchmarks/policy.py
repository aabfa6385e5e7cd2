"""One step of a policy, batch 1, on every backend that is here: hot and at a robot's pace.

Beside them torch eager in the same run, and ONNX Runtime's own `run_with_iobinding`, whose
distance to ours is what our call costs, and the net's matrix products alone, below which no
runtime gets in float32. Contestants take turns; paced calls follow a sleep, as
in a control loop, when no cache is warm.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._policy_floor import products_alone
from benchmarks._random_bundle import write_random_bundle
from benchmarks._report import parse_arguments, progress, report
from iql_ros.bundle import Bundle
from iql_ros.contract import Contract
from iql_ros.errors import BundleError
from iql_ros.policies import BACKENDS, open_policy
from training.learning.config import TrainConfig

OBSERVATIONS, ACTIONS = 27, 7
NETS = {
    "256x256": TrainConfig(hidden=(256, 256)),
    "512x3": TrainConfig(hidden=(512, 512, 512)),
    "sampled64": TrainConfig(hidden=(256, 256), extraction="sampled", samples=64),
}
RATES_HZ = (100, 500)
Call = Callable[[NDArray[np.float32]], object]

IMPORT_RSS = """
import sys
from iql_ros.policies import open_policy
open_policy(sys.argv[1], "onnx").policy
from pathlib import Path
print(next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x))
"""


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    torch.set_num_threads(1)
    hot_calls, paced_calls, many = (
        (2_000, 50, 200_000) if arguments.quick else (20_000, 500, 10_000_000)
    )
    figures: dict[str, object] = {}
    p50_us: dict[str, dict[str, dict[str, float]]] = {}
    p99_us: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for net, config in NETS.items():
            bundle, torch_call = _bundle(Path(folder) / net, config)
            calls = {**_backends(bundle), "torch": torch_call, **products_alone(bundle.policy)}
            pacings = {"hot": (None, hot_calls)} | {
                f"{rate}_hz": (rate, paced_calls) for rate in RATES_HZ
            }
            for pacing, (rate_hz, count) in pacings.items():
                progress(f"{net}, {pacing}: {', '.join(calls)}")
                spent = _measure(calls, bundle.golden.observations, rate_hz, count)
                for name, values in spent.items():
                    for table, quantile in ((p50_us, 0.5), (p99_us, 0.99)):
                        rounded = round(float(np.quantile(values, quantile)), 2)
                        table.setdefault(name, {}).setdefault(net, {})[pacing] = rounded
            if net == "256x256":
                figures["overhead_us"] = _overhead_us(bundle, hot_calls)
                progress(f"{many} calls in a row")
                figures["rss_growth_kb"] = _growth_kb(bundle, many)
                figures["import_rss_mb"] = _import_rss_mb(bundle)
    figures["onnx_times_faster_than_torch_hot"] = {
        net: round(p50_us["torch"][net]["hot"] / p50_us["onnx"][net]["hot"], 2) for net in NETS
    }
    figures["onnx_times_its_matrix_products_hot"] = {
        net: round(
            p50_us["onnx"][net]["hot"]
            / min(p50_us[name][net]["hot"] for name in p50_us if name.startswith("products")),
            2,
        )
        for net in NETS
    }
    report("policy", arguments.quick, {"p50_us": p50_us, "p99_us": p99_us, **figures})


def _bundle(out: Path, config: TrainConfig) -> tuple[Bundle, Call]:
    """A bundle of random weights, and the same policy in torch eager."""
    contract = Contract.model_validate(
        {
            "format": 1,
            "robot": "bench",
            "tick": {"rate_hz": 100},
            "topics": {
                "state": {
                    "topic": "/state",
                    "type": "std_msgs/msg/Float64MultiArray",
                    "max_age_s": 0.1,
                },
                "command": {"topic": "/command", "type": "std_msgs/msg/Float64MultiArray"},
            },
            "observations": [{"name": "x", "topic": "state", "path": f"data[0:{OBSERVATIONS}]"}],
            "actions": [
                {
                    "name": "u",
                    "topic": "command",
                    "path": f"data[0:{ACTIONS}]",
                    "limits": [-1, 1],
                    "safe": 0,
                }
            ],
            "reward": {"expression": "0"},
        }
    )
    bundle, policy = write_random_bundle(out, contract, config)

    def eager(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            action: NDArray[np.float32] = policy(torch.tensor(observation)[None])[0].numpy()
        return action

    return bundle, eager


def _backends(bundle: Bundle) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for name in BACKENDS:
        try:
            calls[name] = open_policy(bundle, name).policy
        except BundleError as error:
            progress(f"without {name}: {str(error).splitlines()[0]:.120}")
    return calls


def _measure(
    calls: dict[str, Call],
    observations: NDArray[np.float32],
    rate_hz: int | None,
    count: int,
) -> dict[str, list[float]]:
    """Microseconds of each call. Paced ones take turns tick by tick, hot ones in bursts."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    burst = 1 if rate_hz else 100
    deadline = time.perf_counter()
    for i in range(0, count, burst):
        for name, call in calls.items():
            if rate_hz:
                deadline = max(deadline + 1 / rate_hz, time.perf_counter() - 1 / rate_hz)
                time.sleep(max(0.0, deadline - time.perf_counter()))
            else:
                call(observations[0])  # warm after the others' turn
            for k in range(burst):
                observation = observations[(i + k) % len(observations)]
                began = time.perf_counter()
                call(observation)
                spent[name].append(1e6 * (time.perf_counter() - began))
    return spent


def _overhead_us(bundle: Bundle, count: int) -> float:
    """Median of our call less that of the runtime's own run on the same binding."""
    policy = open_policy(bundle, "onnx").policy
    run, binding = policy._run, policy._binding  # type: ignore[attr-defined]
    calls: dict[str, Call] = {"ours": policy, "bare": lambda _: run(binding)}
    spent = _measure(calls, bundle.golden.observations, None, count)
    return round(float(np.median(spent["ours"]) - np.median(spent["bare"])), 2)


def _growth_kb(bundle: Bundle, count: int) -> int:
    """By how much the process's resident size rises over many calls."""
    policy, observation = open_policy(bundle, "onnx").policy, bundle.golden.observations[0]
    for _ in range(10_000):
        policy(observation)
    before = _resident_kb()
    for _ in range(count):
        policy(observation)
    return _resident_kb() - before


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _import_rss_mb(bundle: Bundle) -> float:
    """Resident size of a process that has imported the ONNX path and opened the bundle."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_RSS, str(bundle.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return round(int(done.stdout.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
