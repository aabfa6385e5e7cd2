"""`iql-ros dataset`: look at dataset files, put them together, take them apart, translate them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from iql_ros.contract import load_contract
from iql_ros.verbs.terminal import bar, err_console, out_console, room

dataset_app = typer.Typer(
    name="dataset",
    help="Dataset files: info, stats, merge, split; D4RL, Minari and robomimic, in and out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Source(str, Enum):
    """Layouts that can be read."""

    d4rl = "d4rl"
    minari = "minari"
    robomimic = "robomimic"
    imitation = "imitation"


class Target(str, Enum):
    """Layouts that can be written."""

    d4rl = "d4rl"
    minari = "minari"
    robomimic = "robomimic"


DatasetArgument = Annotated[Path, typer.Argument(metavar="FILE", help="HDF5 dataset")]
OutOption = Annotated[Path, typer.Option(help="HDF5 file to write")]
JsonOption = Annotated[bool, typer.Option("--json", help="print as JSON")]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]


@dataset_app.command()
def info(file: DatasetArgument, as_json: JsonOption = False) -> None:
    """Shows what is in a dataset, where it comes from, and what is amiss.

    Example: `iql-ros dataset info data.h5`
    """
    facts = room("training.datasets.facts").facts(file)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    steps = facts["episode_steps"]
    robot = "no contract" if facts["robot"] is None else f"{facts['robot']} "
    digest = "" if facts["contract_digest"] is None else facts["contract_digest"][:16]
    lines = {
        "steps": facts["steps"],
        "episodes": f"{facts['episodes']} of {steps['min']:g} to {steps['max']:g} steps, "
        f"median {steps['median']:g}",
        "ends": f"{facts['terminals']} terminal, {facts['timeouts']} timeout",
        "contract": f"{robot}{digest}",
        "observations": ", ".join(facts["observations"]),
        "actions": ", ".join(facts["actions"]),
        "infos": ", ".join(facts["infos"]),
        "sources": _shortened([source.get("name", "?") for source in facts["sources"]]),
    }
    table = Table(show_header=False, title=str(file))
    for name, value in lines.items():
        table.add_row(name, str(value))
    out_console.print(table)
    _tell(facts["findings"])


@dataset_app.command()
def stats(file: DatasetArgument, as_json: JsonOption = False) -> None:
    """Shows how observations, actions, rewards and returns are spread.

    Example: `iql-ros dataset stats data.h5`
    """
    found = room("training.datasets.facts").statistics(file)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    columns = ("min", "q01", "mean", "std", "q99", "max")
    table = Table(title=str(file), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for column in (*columns, "at limit"):
        table.add_column(column, justify="right", no_wrap=True)
    wholes = {name: found[name] for name in ("rewards", "returns", "episode_steps")}
    for part in (found["observations"], found["actions"], wholes):
        for name, row in part.items():
            share = f"{found['at_limit'][name]:.1%}" if part is found["actions"] else ""
            table.add_row(name, *(f"{row[column]:.3g}" for column in columns), share)
        table.add_section()
    out_console.print(table)


@dataset_app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="HDF5 datasets")],
    out: OutOption,
    force: ForceOption = False,
) -> None:
    """Puts datasets of one contract together, in the order given.

    Example: `iql-ros dataset merge monday.h5 tuesday.h5 --out week.h5`
    """
    merger = room("training.datasets.merge")
    with _progress("reading") as progress:
        findings = merger.merge(files, out, force=force, progress=progress)
    _tell(findings)
    out_console.print(f"{len(files)} datasets -> {out}")


@dataset_app.command()
def split(
    file: DatasetArgument,
    out_a: Annotated[Path, typer.Option("--out-a", help="HDF5 file for the rest")],
    out_b: Annotated[Path, typer.Option("--out-b", help="HDF5 file for the fraction")],
    fraction: Annotated[float, typer.Option(help="share of the episodes for B")] = 0.2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    force: ForceOption = False,
) -> None:
    """Splits a dataset at random, whole episodes at a time.

    Example: `iql-ros dataset split data.h5 --fraction 0.2 --out-a train.h5 --out-b test.h5`
    """
    tools = room("training.datasets.tools")
    a, b = tools.split(file, fraction, seed, out_a, out_b, force=force)
    out_console.print(f"{a} episodes -> {out_a}, {b} episodes -> {out_b}")


@dataset_app.command("import")
def import_(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="file, or Minari's folder")],
    layout: Annotated[Source, typer.Option("--from", help="layout of SRC")],
    out: OutOption,
    obs_key: Annotated[
        list[str] | None,
        typer.Option(help="robomimic: a key of obs to take, repeatable, in this order"),
    ] = None,
    time_limit: Annotated[
        int | None,
        typer.Option(min=1, help="terminals after exactly so many steps are timeouts"),
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(help="what the columns are, where SRC has no contract: YAML, or a robot"),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Translates a dataset of another layout into ours.

    Example: `iql-ros dataset import --from minari D4RL/pen/human-v2 --out pen.h5`
    """
    tools = room("training.datasets.tools")
    with _progress("reading") as progress:
        findings = tools.import_dataset(
            layout.value,
            src,
            out,
            keys=obs_key or (),
            time_limit=time_limit,
            contract=None if contract is None else load_contract(contract),
            force=force,
            progress=progress,
        )
    _tell(findings)
    out_console.print(f"{src} ({layout.value}) -> {out}")


@dataset_app.command()
def export(
    src: DatasetArgument,
    layout: Annotated[Target, typer.Option("--to", help="layout to write")],
    out: Annotated[Path, typer.Option(help="file to write; for Minari a folder such as arm6-v0")],
    force: ForceOption = False,
) -> None:
    """Translates a dataset into another layout.

    Example: `iql-ros dataset export --to minari data.h5 --out ~/.minari/datasets/arm6-v0`
    """
    tools = room("training.datasets.tools")
    with _progress("writing") as progress:
        findings = tools.export_dataset(layout.value, src, out, force=force, progress=progress)
    _tell(findings)
    out_console.print(f"{src} -> {out} ({layout.value})")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with bar(what) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _tell(findings: Iterable[str]) -> None:
    for finding in findings:
        err_console.print(f"[yellow]note[/] {escape(finding)}", highlight=False)


def _shortened(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
