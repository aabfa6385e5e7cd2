"""`iql-ros gate`: no policy reaches hardware that has not passed in simulation."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.gate_record import Criterion, GateRecord, write_gate
from iql_ros.verbs.terminal import bar, err_console, out_console, room

FAILED = 2
ROS_EPISODES = 20


def gate_command(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    suite: Annotated[
        str | None, typer.Option(help="suite of scenarios: a YAML file or a shipped one")
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="world: a YAML file or a shipped one [default: the suite's]")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="of every scenario [default: the suite's]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="fixes all that is drawn by chance")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = os.cpu_count() or 1,
    scenario: Annotated[
        str | None, typer.Option(help="only this one; no record is written then")
    ] = None,
    episode: Annotated[
        int | None, typer.Option(min=0, help="with --scenario: only this one, tick by tick")
    ] = None,
    viewer: Annotated[bool, typer.Option("--viewer", help="with --episode: MuJoCo's")] = False,
    compare: Annotated[
        Path | None, typer.Option(help="another bundle, on the same seeds, beside this one")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="page of HTML [default: BUNDLE.gate.html beside the bundle]")
    ] = None,
    films: Annotated[
        bool, typer.Option(help="in the report, of the usual and the worst episode")
    ] = True,
    ros: Annotated[
        bool, typer.Option("--ros", help="nominal episodes over ROS in real time, beside lockstep")
    ] = False,
    speed: Annotated[
        float, typer.Option(min=0.1, help="with --ros: simulated seconds per second")
    ] = 1.0,
) -> None:
    """Lets a bundle show in simulation what it must be able to do, and writes gate.json.

    The policy runs in the very controller that the robot runs, in a suite of scenarios: delays,
    noise, dead sensors, another machine, pushes, the emergency stop. The same seed gives the same
    record, on one core or many. The exit code is 2 if a criterion does not hold. A page of HTML
    has all figures, trajectories and, where rendering is there, films.

    Example: `iql-ros gate bundle`

    Example: `iql-ros gate bundle --scenario push --episode 7 --viewer` replays one episode.

    Example: `iql-ros gate bundle --compare other_bundle` sets two policies side by side.

    Example: `iql-ros gate bundle --ros --episodes 20` says where ROS differs from lockstep.
    """
    gate, scenarios, verdict = room("sim.gate"), room("sim.scenarios"), room("sim.verdict")
    loaded = load_bundle(bundle)
    robot = loaded.contract.robot
    source = suite or scenarios.default_suite(world or robot)
    chosen = scenarios.load_suite(source).narrowed(
        world=world, scenario=scenario, episodes=episodes, robot=robot
    )
    if ros:
        _over_ros(bundle, chosen.world, episodes or ROS_EPISODES, seed, speed)
        return
    if (episode is not None and scenario is None) or (viewer and episode is None):
        raise typer.BadParameter("--episode needs --scenario, and --viewer needs --episode")
    if episode is not None:
        _replay(gate, chosen, seed, bundle, scenario, episode, viewer)
        return
    run = _run(gate, chosen, seed, bundle, jobs)
    record: GateRecord = verdict.record_of(loaded, run)
    out_console.print(_table(record, run))
    command = f"iql-ros gate {bundle} --suite {source} --seed {seed}"
    command += "" if world is None else f" --world {world}"
    _print_failures(record, command, verdict.advice)
    page = report or bundle.absolute().with_name(f"{bundle.absolute().name}.gate.html")
    _report(gate, page, loaded, record, run, command, films=films)
    if compare is not None:
        theirs = _run(gate, chosen, seed, compare, jobs)
        other = load_bundle(compare)
        beside = page.with_name(f"{page.stem}.vs.{compare.absolute().name}.html")
        _compare(run, theirs, (loaded, other), (record, verdict.record_of(other, theirs)), beside)
    if scenario is None:
        path = write_gate(loaded, record)
        if (old := loaded.gate) is not None:
            out_console.print(
                f"it replaces the record of suite {old.bound_to.suite.name!r}, "
                f"{old.episodes} episodes: {old.verdict}"
            )
        out_console.print(f"{record.verdict}: {record.episodes} episodes, seed {seed} -> {path}")
    else:
        out_console.print(f"{record.verdict}, of one scenario: no gate.json is written")
    if record.verdict != "passed":
        raise typer.Exit(FAILED)


def _run(gate: Any, suite: Any, seed: int, bundle: Path, jobs: int) -> Any:
    try:
        with bar(f"{bundle.name} in {suite.suite}") as shown:
            task = shown.add_task("gate", total=None)
            return gate.run_suite(
                *(suite, seed, partial(gate.controller_of, bundle.absolute())),
                jobs=jobs,
                progress=lambda done, total: shown.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        err_console.print("interrupted: nothing was written")
        raise typer.Exit(130) from None


def _replay(
    gate: Any, suite: Any, seed: int, bundle: Path, scenario: str | None, number: int, viewer: bool
) -> None:
    replay = room("sim.replay")
    make = partial(gate.controller_of, bundle)
    played = replay.replay(
        suite, seed, make, scenario, number, say=out_console.print, viewer=viewer
    )
    out_console.print(f"episode {number} of {scenario}: {replay.in_words(played)}")


def _table(record: GateRecord, run: Any) -> Table:
    table = Table("scenario", "success", "95 % interval", "must hold", "verdict")
    for shown in record.scenarios:
        successes = sum(e.outcome.success for e in run.episodes[shown.name])
        rate = next((c for c in shown.criteria if c.interval is not None), None)
        low_high = "" if rate is None or rate.interval is None else rate.interval
        interval = f"{low_high[0]:.0%} to {low_high[1]:.0%}" if low_high else ""
        held = sum(criterion.passed for criterion in shown.criteria)
        table.add_row(
            shown.name,
            f"{successes} of {shown.episodes}",
            interval,
            f"{held} of {len(shown.criteria)}",
            Text("passed", "green") if shown.passed else Text("failed", "red"),
        )
    return table


def _print_failures(
    record: GateRecord, command: str, advise: Callable[[Criterion], str | None]
) -> None:
    for shown in record.scenarios:
        for criterion in shown.criteria:
            if not criterion.passed:
                err_console.print(
                    f"[red]failed[/] {escape(f'{shown.name}: {criterion.in_words()}')}"
                )
                if (advice := advise(criterion)) is not None:
                    err_console.print(f"  {escape(advice)}")
        if not shown.passed and shown.failing:
            err_console.print(
                f"  watch: {escape(command)} --scenario {shown.name} --episode {shown.failing[0]}"
            )


def _report(
    gate: Any,
    page: Path,
    bundle: Bundle,
    record: GateRecord,
    run: Any,
    command: str,
    *,
    films: bool,
) -> None:
    make = partial(gate.controller_of, bundle.path)
    missing = room("sim.report").write_report(
        page, bundle, record, run, make, command=command, films=films
    )
    if missing is not None:
        err_console.print(f"no films in the report: {escape(missing)}")
    out_console.print(f"report: {page}")


def _over_ros(bundle: Path, world: str, episodes: int, seed: int, speed: float) -> None:
    """Simulator and node as two processes, then the same episodes in lockstep."""
    over_ros, out = room("sim.over_ros"), bundle.absolute().with_name(f"{bundle.name}.gate_ros")
    with err_console.status("") as status:
        found = over_ros.play(
            *(bundle, world),
            episodes=episodes,
            out=out,
            seed=seed,
            speed=speed,
            tell=lambda line: status.update(escape(line[-100:])),
        )
    for line in room("sim.against_lockstep").in_words(found["against_lockstep"], found):
        out_console.print(line)
    out_console.print(f"figures and logs: {out}")


def _compare(
    ours: Any,
    theirs: Any,
    bundles: tuple[Bundle, Bundle],
    records: tuple[GateRecord, GateRecord],
    page: Path,
) -> None:
    report = room("sim.report_compare")
    first, second = report.names_of(*bundles)
    table = Table("scenario", first, second, "success, difference", "return, difference")
    rows = room("sim.compare").compare(ours, theirs)
    for pair in rows:
        gap, low, high = pair.gap
        mean, least, most = pair.return_gap
        table.add_row(
            pair.scenario,
            *(f"{count} of {pair.episodes}" for count in pair.successes),
            f"{gap:+.0%} ({low:+.0%} to {high:+.0%})",
            f"{mean:+.3g} ({least:+.3g} to {most:+.3g})",
        )
    out_console.print(table)
    report.write_comparison(page, bundles, records, rows)
    out_console.print("differences: first less second, on the same seeds, with 95 % intervals")
    out_console.print(f"comparison: {page}")
