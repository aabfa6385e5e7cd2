"""`iql-ros sweep`: train every combination of settings, rank them by estimated value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from iql_ros.verbs.terminal import bar, err_console, out_console, resumable, room

SHOWN = 20
"""Trials in the terminal's table; the page has all."""


def sweep_command(
    dataset: Annotated[Path, typer.Argument(help="HDF5 dataset")],
    out: Annotated[Path, typer.Option(help="folder of the trials, the table and the plot")],
    set_: Annotated[
        list[str], typer.Option("--set", help="key=v1,v2,... of any training setting, repeatable")
    ],
    config: Annotated[Path | None, typer.Option(help="YAML of what all trials share")] = None,
    preset: Annotated[str | None, typer.Option(help="see `iql-ros train`")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = os.cpu_count() or 1,
    fit_steps: Annotated[int, typer.Option(min=1, help="updates of each score's fit")] = 4_000,
) -> None:
    """Trains every combination of settings, each in a process, and ranks them.

    They are ranked by fitted Q evaluation. Finished trials are not repeated and half-done ones go
    on when it is called again. A trial that fails does not stop the others; the exit code then
    is 2.

    Example: `iql-ros sweep data.h5 --out sweeps/a --set expectile=0.7,0.9 --set seed=0,1,2`
    """
    sweeper, pages = room("training.sweep"), room("training.sweep_page")
    tasks = sweeper.tasks_of(dataset, set_, config=config, preset=preset, fit_steps=fit_steps)

    def show(task: Any, outcome: Any) -> None:
        shown.advance(bar_task)
        if isinstance(outcome, sweeper.Failed):
            err_console.print(f"[red]failed[/] {escape(task.name)}: {escape(outcome.reason)}")

    with resumable(), bar("trials") as shown:
        bar_task = shown.add_task("trials", total=len(tasks))
        outcomes = sweeper.sweep(tasks, out, jobs=jobs, progress=show)
    facts = pages.sweep_facts(tasks, outcomes, out)
    page = out / "sweep.html"
    room("training.evaluation.write").write_page(page, pages.render_sweep(facts), facts)
    _print(facts)
    out_console.print(f"report: {page}")
    if facts["failed"]:
        err_console.print(f"{len(facts['failed'])} of {len(tasks)} trials failed")
        raise typer.Exit(2)


def _print(facts: dict[str, Any]) -> None:
    title = f"by {facts['ranked_by']}, discount {facts['discount']:g}"
    table = Table("setting", "seeds", "score", "lowest to highest seed", title=title)
    for row in facts["settings"][:SHOWN]:
        span = f"{row['low']:.4g} to {row['high']:.4g}" if row["seeds"] > 1 else ""
        table.add_row(row["setting"], str(row["seeds"]), f"{row['mean']:.4g}", span)
    out_console.print(table)
    if facts["trials"]:
        best = facts["trials"][0]
        low, high = best["score"]["low"], best["score"]["high"]
        out_console.print(f"best trial: {best['run']} ({low:.4g} to {high:.4g})")
    out_console.print(facts["caveat"])
