"""The convention that every benchmark follows: flags, progress and the last line.

def main() -> None:
    arguments = parse_arguments("Ticks per second of the controller.")
    progress("warming up")
    report("tick", arguments.quick, {"ticks_per_s": 12345.6})
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys


def parse_arguments(description: str) -> argparse.Namespace:
    """Return the command line's flags: `quick`, true for a run of under a minute."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="finish in under a minute")
    return parser.parse_args()


def progress(message: str) -> None:
    """Say on stderr what is being measured; stdout stays free for the result."""
    print(message, file=sys.stderr, flush=True)


def report(name: str, quick: bool, results: dict[str, object]) -> None:
    """Print the result with the machine it was measured on, as one line of JSON.

    Args:
        name: of the benchmark, as in `python -m benchmarks.NAME`.
        quick: whether this was the short run.
        results: figures, each key with its unit: `p99_us`, `updates_per_s`.

    Raises:
        ValueError: a figure is NaN or infinite, which JSON cannot hold.
    """
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    line = {"benchmark": name, "quick": quick, **results, "machine": machine}
    print(json.dumps(line, allow_nan=False), flush=True)
