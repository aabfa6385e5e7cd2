"""`iql-ros`: one verb for each stage. The only place where all rooms meet.

`training` and `sim` are imported inside the verbs, so that a robot without torch, h5py or
mujoco can still run, verify and inspect a bundle.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from iql_ros import __version__
from iql_ros.bundles.format import Document
from iql_ros.contract import Contract, load_contract, require_same
from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from iql_ros.verbs.bundle import sign_command, verify_command
from iql_ros.verbs.check import check_command
from iql_ros.verbs.compile import compile_command, engines_command
from iql_ros.verbs.dataset import dataset_app
from iql_ros.verbs.evaluate import compare_command, evaluate_command
from iql_ros.verbs.gate import gate_command
from iql_ros.verbs.inspect import inspect_command
from iql_ros.verbs.recipes import RECIPES
from iql_ros.verbs.sweep import sweep_command
from iql_ros.verbs.terminal import bar, err_console, out_console, resumable, room

app = typer.Typer(
    name="iql-ros",
    help="Robot logs in, a verified controller out: convert, train, export, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.command("check")(check_command)
app.command("inspect")(inspect_command)
app.command("compile")(compile_command)
app.command("engines")(engines_command)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("gate")(gate_command)
app.command("verify")(verify_command)
app.command("sign")(sign_command)
app.command("sweep")(sweep_command)
app.add_typer(dataset_app, name="dataset")

ContractOption = Annotated[
    str, typer.Option("--contract", "-c", help="contract YAML, or a shipped robot such as arm6")
]
SameContractOption = Annotated[
    str | None, typer.Option("--contract", "-c", help="refuse if it was made by another contract")
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace what is there")]


class Schema(str, Enum):
    """What has a JSON Schema."""

    contract = "contract"
    bundle = "bundle"


@app.command()
def schema(
    of: Annotated[Schema, typer.Argument(help="a contract, or a bundle's bundle.json")] = (
        Schema.contract
    ),
) -> None:
    """Prints the JSON Schema of a contract, so that an editor completes the YAML, or of a bundle.

    Example: `iql-ros schema > contract.schema.json`, then put
    `# yaml-language-server: $schema=contract.schema.json` on the contract's first line.
    """
    model = Contract if of is Schema.contract else Document
    print(json.dumps(model.model_json_schema(), indent=2))


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="folder for the bags")],
    robot: Annotated[
        str, typer.Option(help="a shipped robot, or a world file that names its operators")
    ] = "arm6",
    episodes: Annotated[int, typer.Option(min=1)] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = os.cpu_count() or 1,
    bundle: Annotated[
        Path | None, typer.Option(help="a bundle drives, in place of scripted operators")
    ] = None,
    scenario: Annotated[str, typer.Option(help="with --bundle: one of the suite")] = "nominal",
    suite: Annotated[
        str | None, typer.Option(help="with --scenario: a YAML file [default: the robot's]")
    ] = None,
) -> None:
    """Records rosbag2 logs of a simulated robot under scripted, mixed-quality control.

    Bags that are already there are kept, so an interrupted recording goes on.

    Example: `iql-ros record --robot diffbot --episodes 200 --out logs`

    Example: `iql-ros record --bundle bundle --scenario push --out more_logs` (docs/improving.md)
    """
    recorder = room("sim.record")
    driver = None
    if bundle is not None:
        scenarios = room("sim.scenarios")
        chosen = scenarios.load_suite(suite or scenarios.default_suite(robot))
        driver = recorder.Driver(bundle.absolute(), scenario, chosen.only(scenario))
    kept = 0

    def show(done: int, _: int) -> None:
        nonlocal kept
        kept = done
        shown.update(task, completed=done)

    def said() -> str:
        return f"whole bags with {kept} of {episodes} episodes stay in {out}, what began is dropped"

    with resumable(said), bar("recording") as shown:
        task = shown.add_task("recording", total=episodes)
        recording = recorder.record(
            out, episodes, seed, jobs=jobs, progress=show, world=robot, driver=driver
        )
    results = [asdict(result) for result in recording.results]
    write_text(out / "summary.json", json.dumps({"seed": seed, "episodes": results}) + "\n")
    succeeded = sum(result.success for result in recording.results)
    out_console.print(
        f"{len(recording.bags)} bags in {out}: {succeeded} of {len(results)} episodes succeeded"
    )


@app.command()
def convert(
    logs: Annotated[list[Path], typer.Argument(help="bag files, bag folders, folders of bags")],
    contract: ContractOption,
    out: Annotated[Path, typer.Option(help="HDF5 file to write")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="processes [default: as many as are worth it]")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Converts robot logs to one HDF5 dataset of transitions.

    Reads rosbag2 (mcap, sqlite3) and ROS 1 .bag. A log that fails is reported and left out,
    and the exit code is then 2. An interrupted conversion goes on when it is called again.

    Example: `iql-ros convert logs/ --contract robot.yaml --out data.h5`
    """
    converter = room("training.conversion.convert")
    loaded = load_contract(contract)
    reasons: list[str] = []

    def show(path: Path, result: Any) -> None:
        shown.advance(task)
        if isinstance(result, converter.Failed):
            if result.reason not in reasons:
                err_console.print(f"[red]left out[/] {escape(result.reason)}", highlight=False)
            reasons.append(result.reason)
        else:
            for finding in result.findings:
                err_console.print(
                    f"[yellow]note[/] {escape(f'{path.name}: {finding}')}", highlight=False
                )

    paths = room("training.logs").find_logs(logs)
    with resumable(), bar("converting") as shown:
        task = shown.add_task("converting", total=len(paths))
        try:
            report = converter.convert(paths, loaded, out, force=force, jobs=jobs, progress=show)
        except IqlRosError:
            if len(reasons) < len(paths):
                raise
            raise IqlRosError(
                f"none of {len(paths)} logs gave a step: the reasons are above"
            ) from None
    out_console.print(
        f"{report['steps']} steps in {report['episodes']} episodes from {len(report['logs'])} "
        f"logs -> {out} (report: {out.with_suffix('.report.html')})"
    )
    if report["failed"]:
        raise typer.Exit(2)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="HDF5 dataset")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    preset: Annotated[
        str | None,
        typer.Option(help="locomotion, sparse-reward, narrow-demonstrations or few-episodes"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of training settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, repeatable")] = None,
    contract: SameContractOption = None,
    algorithm: Annotated[str | None, typer.Option(help="iql, bc or cql")] = None,
    steps: Annotated[int | None, typer.Option(help="gradient updates")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="so many at once from --seed on, into OUT/seed-N; for a GPU")
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint")] = False,
    force: ForceOption = False,
) -> None:
    """Trains a policy offline: IQL, or a baseline (behaviour cloning, CQL) beside it.

    Example: `iql-ros train data.h5 --out runs/a --set expectile=0.8`
    """
    trainer, settings = room("training.learning.train"), room("training.learning.config")
    shortcuts = {"algorithm": algorithm, "steps": steps, "seed": seed}
    overrides = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    begun_with = out / "config.yaml"
    if resume and config is None and begun_with.exists():
        config = begun_with
    resolved = settings.load_config(config, [*overrides, *(set_ or [])], preset)
    if contract is not None:
        data = room("training.datasets.dataset").load_dataset(dataset)
        require_same(load_contract(contract), data.contract, str(dataset))
    if seeds == 1:
        runs = [trainer.train(dataset, out, resolved, resume=resume, force=force)]
    else:
        numbers = range(resolved.seed, resolved.seed + seeds)
        together = room("training.learning.together")
        runs = together.train_together(dataset, out, resolved, numbers, resume=resume, force=force)
    if not all(run.finished for run in runs):
        raise typer.Exit(130)
    for run in runs:
        out_console.print(f"run in {run.path}; next: iql-ros export {run.path} --out bundle")


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a training run")],
    out: Annotated[Path, typer.Option(help="folder of the bundle")],
    dataset: Annotated[Path | None, typer.Option(help="if it is not where it was")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="of a sampled policy: actions to choose from")
    ] = None,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="it draws its actions, not the likeliest or best")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Exports a run's policy to a bundle, and verifies it.

    Example: `iql-ros export runs/a --out bundle`
    """
    path = room("training.export").export_run(
        run_folder, out, dataset=dataset, samples=samples, stochastic=stochastic, force=force
    )
    out_console.print(f"verified bundle in {path}")


@app.command()
def replay(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    log: Annotated[Path, typer.Argument(help="a bag with the contract's topics")],
    out: Annotated[Path, typer.Option(help="folder for plot and figures")] = Path("replay"),
    force: ForceOption = False,
) -> None:
    """Shows what the policy would have commanded, beside what a log recorded.

    The log's messages go through the very controller that the robot runs. A black box that a node
    left behind is relived: each tick is decided again, and compared to the bit.

    Example: `iql-ros replay bundle logs/run1.mcap --out replay`
    """
    summary = room("training.replay").replay(bundle, log, out, force=force)
    table = Table("action", "recorded mean", "policy mean", "RMS difference", "correlation")
    for name, row in summary["actions"].items():
        table.add_row(name, *(f"{row[key]:.4g}" for key in row))
    out_console.print(table)
    out_console.print(f"ticks by status: {summary['statuses']}; plot: {out / 'replay.png'}")
    if (box := summary.get("box")) is not None:
        if "note" in box:
            err_console.print(f"[yellow]note[/] {escape(box['note'])}")
        same = f"{box['identical']} of {box['decisions']} decisions came out the same to the bit"
        out_console.print(f"a black box, on backend {box['backend']}: {same}")
        if box.get("first_difference"):
            out_console.print(f"first difference: {box['first_difference']}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle")],
    mode: Annotated[str, typer.Option(help="shadow only reports, active moves")] = "shadow",
    contract: SameContractOption = None,
    speed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="share of the way to the policy's command")
    ] = 1.0,
    sim_time: Annotated[bool, typer.Option("--sim-time", help="take time from /clock")] = False,
    allow_ungated: Annotated[
        bool, typer.Option("--allow-ungated", help="move although the simulation gate says no")
    ] = False,
) -> None:
    """Runs the controller node without `ros2 launch`: configured and activated at once.

    In shadow mode commands go to `<topic>/shadow`. In active mode, outside simulation, the bundle
    must have passed `iql-ros gate`. More arguments go to ROS:
    `iql-ros run bundle -- -r /cmd_vel:=/robot1/cmd_vel -p executor:=events`.

    Exit code 78: contract, bundle, gate or parameters forbid it, and would do so again.

    Example: `iql-ros run bundle --mode active --contract robot.yaml`
    """
    # Until the node takes signals over, one ends the process: an import may swallow the exception.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    node = room("iql_ros.nodes.controller")
    parameters: dict[str, object] = {"bundle": bundle, "mode": mode, "speed": speed}
    parameters["use_sim_time"] = str(sim_time).lower()
    parameters["allow_ungated"] = str(allow_ungated).lower()
    if contract is not None:
        parameters["contract"] = contract
    arguments = [part for k, v in parameters.items() for part in ("-p", f"{k}:={v}")]
    code = node.main(["--ros-args", *arguments, *context.args], autostart=True)
    raise typer.Exit(code)


@app.command()
def demo(
    robot: Annotated[
        str, typer.Option(help=f"which simulated robot: {', '.join(RECIPES)}")
    ] = "arm6",
    out: Annotated[
        Path | None, typer.Option(help="folder for everything it makes [default: runs/demo...]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="begin again from nothing")] = False,
) -> None:
    """The whole way of a simulated robot: logs, dataset, BC and IQL, bundles, one table, the gate.

    What is finished is kept, so an interrupted demo goes on where it was. The exit code is 2 if the
    policy does not pass its gate.

    Example: `iql-ros demo --robot diffbot`
    """
    from iql_ros.verbs.demo import run_demo

    if robot not in RECIPES:
        raise IqlRosError(f"--robot {robot!r} has no demo: there are {', '.join(RECIPES)}")
    recipe = RECIPES[robot]
    with resumable():
        passed = run_demo(recipe, recipe.out if out is None else out, fresh=fresh)
    if not passed:
        raise typer.Exit(2)


def _version(value: bool) -> None:
    if value:
        print(f"iql_ros {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print and exit")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors that a user can mend end in one message and exit code 1."""
    try:
        app()
    except IqlRosError as error:
        err_console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
