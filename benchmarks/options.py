"""What each option of training does for the arm: success and return in closed loop.

Every row is the demo's setting with one thing changed, trained with each seed and then driven
in lockstep through the deployed controller, by all policies in the same episodes. A trial that
is on disk is not repeated, so an interrupted benchmark goes on, and a new row costs only itself.

    python -m benchmarks.options --out runs/options            # the table; hours on two cores
    python -m benchmarks.options --out runs/options --only default cql
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._report import progress, report
from iql_ros.contract import load_contract
from iql_ros.contracts.safety import Safety
from iql_ros.controller import Controller
from iql_ros.files import write_text
from iql_ros.statistics import difference_interval, wilson_interval
from iql_ros.wire import make_types
from sim.loop import run_episodes
from sim.record import record
from sim.world import load_world
from training.conversion.convert import convert
from training.learning.config import TrainConfig, load_config
from training.learning.run import Run
from training.learning.train import train
from training.logs import find_logs

ROBOT = "arm6"
WORLD_SEED = 2  # of the episodes that all policies are judged in

# The demo's IQL on a seventh of its data, with a sixteenth of its weights, in a quarter of
# its steps: trained in seconds, and with room above. (On a quarter of the data 94 of 100 reach.)
EPISODES_RECORDED = 200
BASE = {
    "steps": 3000,
    "hidden": [64, 64],
    "batch_size": 128,
    "learning_rate": 1e-3,
    "discount": 0.95,
    "expectile": 0.8,
    "inverse_temperature": 6.0,
    "log_every": 100,
    "evaluate_every": 100,  # a led expectile has thirty looks
    "checkpoint_every": 3000,
}
ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "bc": {"algorithm": "bc"},
    "bc, best half": {"algorithm": "bc", "best_fraction": 0.5},
    "bc, best tenth": {"algorithm": "bc", "best_fraction": 0.1},
    "deterministic actor": {"actor": "deterministic"},
    "unsquashed actor": {"actor": "unsquashed"},
    "dropout 0.1": {"dropout": 0.1},
    "layer norm, actor": {"layer_norm": "actor"},
    "layer norm, critic": {"layer_norm": "critic"},
    "layer norm, all": {"layer_norm": "all"},
    "value warm-up 300": {"value_warm_up": 300},
    "expectile annealed": {"expectile_schedule": "annealed"},
    "expectile by value error": {"expectile_schedule": "value_error"},
    "expectile by policy value": {"expectile_schedule": "policy_value"},
    "sampled, best of 32": {"extraction": "sampled"},
    "sampled, drawn by exp(beta A)": {"extraction": "sampled", "selection": "drawn"},
    "cql": {"algorithm": "cql", "conservative_samples": 4},
    "cql, alpha 0.5": {
        **{"algorithm": "cql", "conservative_samples": 4},
        "conservative_weight": 0.5,
    },
}


def main() -> None:
    arguments = _arguments()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="iql_ros_options_"))
    steps, seeds, episodes = arguments.steps, range(arguments.seeds), arguments.episodes
    rows = {name: ROWS[name] for name in arguments.only or ROWS}
    recorded = EPISODES_RECORDED
    if arguments.quick:
        steps, seeds, episodes, recorded = 300, range(1), 5, 20
        rows = {name: ROWS[name] for name in ("default", "bc", "dropout 0.1")}
    dataset = arguments.dataset or make_dataset(out, recorded)
    trials: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for seed in seeds:  # seed by seed, so that an early end leaves a table of all rows
        for name, changes in rows.items():
            config = trial_config(changes, seed, steps)
            trials[name].append(trial(out, name, dataset, config, episodes))
    table = {name: summary(of_row, trials["default"]) for name, of_row in trials.items()}
    write_text(out / "table.md", markdown(table))
    progress(markdown(table))
    report("options", arguments.quick, {"rows": table, "steps": steps, "folder": str(out)})


def make_dataset(out: Path, episodes: int) -> Path:
    """Records and converts the demo's dataset, or finds it made."""
    path = out / f"arm_{episodes}.h5"
    if not path.exists():
        progress(f"recording {episodes} episodes")
        jobs = min(2, os.cpu_count() or 1)
        record(out / f"logs_{episodes}", episodes, seed=0, jobs=jobs)
        convert(find_logs([out / f"logs_{episodes}"]), load_contract(ROBOT), path, jobs=jobs)
    return path


def trial_config(changes: dict[str, Any], seed: int, steps: int) -> TrainConfig:
    """The base with one row's changes."""
    intervals = {"steps": steps, "seed": seed, "checkpoint_every": max(steps, 100)}
    values = {**BASE, **intervals, **changes}
    return load_config(None, [f"{key}={value}" for key, value in values.items()])


def trial(
    out: Path, name: str, dataset: Path, config: TrainConfig, episodes: int
) -> dict[str, Any]:
    """Trains and drives one policy, or reads what that gave before."""
    path = out / "trials" / f"{trial_key(dataset, config, episodes)}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    with tempfile.TemporaryDirectory(prefix="iql_ros_options_") as folder:
        run = train(dataset, Path(folder) / "run", config, progress=lambda *_: None)
    results = drive(run, episodes)
    content = {
        "row": name,
        "seed": config.seed,
        "successes": sum(result.success for result in results),
        "episodes": len(results),
        "mean_return": statistics.fmean(result.total_reward for result in results),
        "held_out": run.metrics,
        "config": config.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content) + "\n")
    progress(
        f"{name}, seed {config.seed}: {content['successes']} of {episodes}, "
        f"mean return {content['mean_return']:.2f}"
    )
    return content


def trial_key(dataset: Path, config: TrainConfig, episodes: int) -> str:
    """Names a trial by what is not default in it, so that a new option repeats none."""
    changed = config.model_dump(mode="json", exclude_defaults=True)
    key = json.dumps([changed, str(dataset.resolve()), episodes])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def drive(run: Run, episodes: int) -> list[Any]:
    """Runs episodes in lockstep through the controller that would be deployed."""

    def policy(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return run.policy(torch.from_numpy(observation)[None])[0].numpy()

    # Policies are compared, not what stops them: no check, for which a run has no statistics.
    contract = load_contract(ROBOT).model_copy(update={"safety": Safety()})
    controller = Controller(contract, policy, make_types({}))
    return run_episodes(load_world(ROBOT, WORLD_SEED), controller, range(episodes))


def summary(trials: list[dict[str, Any]], default: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all seeds, with 95 % intervals; each seed's share shows how much seeds differ."""
    counts, base = (
        (sum(t["successes"] for t in some), sum(t["episodes"] for t in some))
        for some in (trials, default)
    )
    shares = [t["successes"] / t["episodes"] for t in trials]
    returns = [t["mean_return"] for t in trials]
    return {
        "successes": counts[0],
        "episodes": counts[1],
        "interval": wilson_interval(*counts),
        "of_seeds": [round(share, 3) for share in shares],
        "over_default": difference_interval(counts, base),
        "mean_return": statistics.fmean(returns),
        "return_of_seeds": [round(value, 3) for value in returns],
    }


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table as docs/training.md has it."""
    lines = [
        "| setting | reached | 95 % | each seed | against default | mean return |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        low, high = row["interval"]
        worse, better = row["over_default"]
        seeds = " ".join(f"{share:.0%}" for share in row["of_seeds"])
        lines.append(
            f"| {name} | {row['successes']} of {row['episodes']} | {low:.0%} to {high:.0%} "
            f"| {seeds} | {worse:+.0%} to {better:+.0%} | {row['mean_return']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="finish in under a minute")
    parser.add_argument("--out", type=Path, help="folder of the trials; by default a temporary one")
    parser.add_argument("--dataset", type=Path, help="the arm's, made if not given")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=ROWS, help="these rows alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--episodes", type=int, default=100, help="driven by each policy")
    arguments = parser.parse_args()
    if arguments.only and "default" not in arguments.only:
        arguments.only.insert(0, "default")  # what the others are compared with
    return arguments


if __name__ == "__main__":
    main()
