"""What the verbs share: where they print, and how they reach the other rooms."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iql_ros.errors import IqlRosError

# No markup where names of files and fields are printed: [elbow] would vanish.
out_console = Console(soft_wrap=True, markup=False, highlight=False)
err_console = Console(stderr=True, soft_wrap=True, highlight=False)


class NotInstalledError(IqlRosError):
    """A room lacks what it needs, which the robot does without."""


def room(module: str) -> Any:
    """Imports a module of another room.

    Raises:
        NotInstalledError: says what to install.
        IqlRosError: names what stands in the room's place, of which nothing is run.
    """
    here = Path(__file__).parents[2]
    top = module.split(".")[0]
    found = importlib.util.find_spec(top)
    if found is None:
        raise NotInstalledError(
            f"package {top!r} is not beside iql_ros in {here}: install iql_ros as a whole"
        )
    where = Path(next(iter(found.submodule_search_locations or [str(found.origin)])))
    if where != here / top:
        raise IqlRosError(
            f"{where} shadows package {top!r} of iql_ros, which is in {here}: rename it, or take "
            f"its folder off Python's path (the working folder, PYTHONPATH); if it was installed, "
            f"uninstall it or use a clean venv"
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = {"training": "train", "sim": "sim", "iql_ros": "ros"}[top]
        raise NotInstalledError(
            f"{error.name!r} is not installed, {module} needs it: "
            f"pip install 'iql_ros[{extra}]', or on a robot source your ROS setup file"
        ) from None


@contextmanager
def resumable(kept: Callable[[], str] | None = None) -> Iterator[None]:
    """Ends a verb that is interrupted with what to do next, and exit code 130.

    Args:
        kept: says what of the work stays.
    """
    try:
        yield
    except KeyboardInterrupt:
        stays = "" if kept is None else f"{kept()}; "
        err_console.print(
            f"interrupted: {stays}the same command again goes on where it was", markup=False
        )
        raise typer.Exit(130) from None


def bar(what: str) -> Progress:
    """A progress bar on stderr that vanishes when it is done."""
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
    )
