"""`iql-ros evaluate` and `compare`: what logs tell about policies, before any robot moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from iql_ros.errors import IqlRosError
from iql_ros.verbs.terminal import err_console, out_console, room

VETO = 3
"""Exit code of `evaluate` when it objects."""

DiscountOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=0.9999, help="gamma of the estimates [default: the training's]"),
]
FitStepsOption = Annotated[
    int, typer.Option(min=1, help="updates of each fitted Q evaluation; fewer are faster, rougher")
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]


def evaluate_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a training run")],
    dataset: Annotated[
        Path | None,
        typer.Argument(help="logs recorded since, or the run's own dataset if it has moved"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="page to write [default: RUN/evaluation.html]")
    ] = None,
    discount: DiscountOption = None,
    fit_steps: FitStepsOption = 4_000,
    force: ForceOption = False,
) -> None:
    """Judges a run from logs: estimated value, calibration, fitting, actions, support.

    It may veto (exit code 3); it never approves: only the simulation gate and people do. Writes a
    page and, beside it, the same facts as JSON.

    Example: `iql-ros evaluate runs/a`
    """
    page = run_folder / "evaluation.html" if out is None else out
    _refuse_to_replace(page, force or out is None)
    settings = room("training.evaluation.fqe").FqeSettings(steps=fit_steps)
    with _saying() as say:
        facts = room("training.evaluation.evaluate").evaluate(
            run_folder, dataset, discount=discount, settings=settings, say=say
        )
    html = room("training.evaluation.page").render_evaluation(facts)
    room("training.evaluation.write").write_page(page, html, facts)
    _print_evaluation(facts)
    out_console.print(f"report: {page}")
    if facts["reasons"]:
        raise typer.Exit(VETO)


def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs")],
    out: Annotated[Path | None, typer.Option(help="page to write, JSON beside it")] = None,
    discount: DiscountOption = None,
    fit_steps: FitStepsOption = 4_000,
    force: ForceOption = False,
) -> None:
    """Ranks runs on one dataset by estimated value, with intervals paired by episode.

    Example: `iql-ros compare runs/a runs/b --out comparison.html`
    """
    if out is not None:
        _refuse_to_replace(out, force)
    comparing = room("training.evaluation.compare")
    settings = room("training.evaluation.fqe").FqeSettings(steps=fit_steps)
    with _saying() as say:
        facts = comparing.compare(runs, discount=discount, settings=settings, say=say)
    _print_comparison(facts)
    if out is not None:
        room("training.evaluation.write").write_page(out, comparing.render_comparison(facts), facts)
        out_console.print(f"report: {out}")


def _refuse_to_replace(page: Path, may_replace: bool) -> None:
    if page.suffix != ".html":
        raise IqlRosError(f"--out {page} must end in .html: the facts go beside it as .json")
    for file in (page, page.with_suffix(".json")):
        if file.exists() and not may_replace:
            raise IqlRosError(f"{file} exists: choose another name or pass --force")


@contextmanager
def _saying() -> Iterator[Callable[[str], None]]:
    """Yields what shows the present piece of work on stderr."""
    with err_console.status("reading") as status:
        yield lambda what: status.update(escape(what))


def _print_evaluation(facts: dict[str, Any]) -> None:
    value, outside = facts["value"], facts["outside"]
    table = Table("", "mean", "95 % interval", title=f"{facts['run']}: {facts['judged_on']}")
    rows = {
        "value of the policy (FQE)": value["policy"],
        "of what was recorded (FQE)": value["behaviour"],
        "of what was recorded (returns)": value["recorded_return"],
        "policy less recorded": value["gain"],
    }
    if value["doubly_robust"] is not None:
        usable = "" if value["doubly_robust_usable"] else ", unusable"
        rows[f"value with its noise (doubly robust{usable})"] = value["doubly_robust"]["value"]
    for name, interval in rows.items():
        table.add_row(name, f"{interval['mean']:.4g}", _span(interval))
    out_console.print(table)
    if value["doubly_robust_missing"]:
        out_console.print(f"no doubly robust estimate: {value['doubly_robust_missing']}")
    out_console.print(
        f"actions: {facts['actions']['to_recorded']:.1%} of range from the recorded ones; "
        f"{outside['policy_pairs']:.1%} of steps outside support"
    )
    for remark in facts["remarks"]:
        out_console.print(f"- {remark}")
    for reason in facts["reasons"]:
        err_console.print(f"[bold red]veto:[/] {escape(reason)}")
    if not facts["reasons"]:
        out_console.print("verdict: no objection")
    out_console.print(facts["caveat"])


def _print_comparison(facts: dict[str, Any]) -> None:
    title = f"by {facts['ranked_by']}, discount {facts['discount']:g}, {facts['judged_on']}"
    table = Table("", "run", "value", "95 %", "less the best", "less recorded", title=title)
    for i, row in enumerate(facts["runs"]):
        table.add_row(
            str(i + 1),
            row["run"],
            f"{row['value']['mean']:.4g}",
            _span(row["value"]),
            _span(row["to_best"]) if i else "",
            _span(row["gain"]),
        )
    out_console.print(table)
    for row in facts["runs"]:
        for objection in row["objections"]:
            err_console.print(f"[yellow]{escape(row['run'])}:[/] {escape(objection)}")
    out_console.print(facts["caveat"])


def _span(interval: dict[str, float]) -> str:
    return f"{interval['low']:.4g} to {interval['high']:.4g}"
