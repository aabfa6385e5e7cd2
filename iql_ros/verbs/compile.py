"""`iql-ros compile`, `iql-ros engines`: TensorRT engines, built and kept where they run."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from iql_ros.backends.engines import Entry, default_cache, list_engines, remove_entry
from iql_ros.backends.tensorrt import Options, compile_bundle, misfit
from iql_ros.backends.tensorrt_machine import Machine, find_machine
from iql_ros.bundle import load_bundle
from iql_ros.errors import BundleError
from iql_ros.verbs.terminal import err_console, out_console


class PrecisionName(str, Enum):
    """Precisions of the matrix products."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


CacheOption = Annotated[
    Path | None, typer.Option(help="folder of engines, yours alone; default ~/.cache/iql_ros")
]


def compile_command(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    precision: Annotated[
        PrecisionName, typer.Option(help="of the matrix products")
    ] = PrecisionName.fp32,
    cache: CacheOption = None,
    workspace: Annotated[
        int, typer.Option(min=1, help="MB of device memory that a tactic may use")
    ] = 256,
) -> None:
    """Builds the bundle's TensorRT engine on this machine, and checks it by the golden pairs.

    The node then finds it and configures at once. An engine that fails the check is not kept.

    Example: `iql-ros compile bundle --precision fp16`
    """
    options = Options(precision=precision.value, workspace_mb=workspace, cache=cache)
    loaded = load_bundle(bundle)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=err_console,
        transient=True,
    ) as shown:
        # Before TensorRT 10 there is no telling how far it is: the bar pulses.
        task = shown.add_task("building", total=None)
        compiled = compile_bundle(
            loaded,
            options,
            lambda phase, step, steps: shown.update(
                task, description=phase, completed=step, total=steps
            ),
        )
    parity = compiled.verification
    out_console.print(
        f"{precision.value} engine in {compiled.path}\n"
        f"built in {compiled.seconds:.1f} s by TensorRT {compiled.key.tensorrt} for "
        f"{compiled.key.device}; runs as trained: {parity.pairs} golden pairs, worst error "
        f"{parity.worst_error:.1e} of {parity.worst_action}'s range (tolerance "
        f"{parity.tolerance:.0e}); launched as {compiled.launch}"
    )


def engines_command(
    cache: CacheOption = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="remove what this machine cannot use")
    ] = False,
) -> None:
    """Lists the TensorRT engines of this user, and which of them this machine can use.

    Example: `iql-ros engines --prune`
    """
    folder = default_cache() if cache is None else cache
    machine, unknown = _machine()
    out_console.print(f"engines in {folder}")
    if unknown:
        out_console.print(f"none can be used here: {unknown}")
    for entry in list_engines(folder):
        misfit = _misfit(entry, machine)
        if prune and misfit:
            remove_entry(entry)
        state = f"removed, {misfit}" if prune and misfit else misfit
        out_console.print(_line(entry, state or ("" if unknown else "usable")))
    if unknown and prune:
        out_console.print("so only damaged ones were removed")


def _machine() -> tuple[Machine | None, str]:
    """This machine, or why it cannot run any engine."""
    try:
        return find_machine(), ""
    except BundleError as error:
        return None, str(error)


def _misfit(entry: Entry, machine: Machine | None) -> str:
    """Why an engine can never be used here; empty if it can, or if that is not known."""
    if entry.key is None:
        return entry.fault
    if machine is None:
        return ""
    return misfit(entry.key, machine)


def _line(entry: Entry, state: str) -> str:
    parts = [f"  {entry.path.name[:12]}  {entry.size / 1e6:.1f} MB"]
    if entry.key is not None:
        parts.append(f"{entry.key.precision}, TensorRT {entry.key.tensorrt}, {entry.key.device}")
        parts.append(f"of {entry.facts.get('bundle', 'an unknown bundle')}")
    return ", ".join(parts) + (f": {state}" if state else "")
