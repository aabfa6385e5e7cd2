"""`iql-ros inspect`: what is in a log, as a table, as sentences, as JSON, and a first contract."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from iql_ros.contracts.definitions import read_definitions
from iql_ros.errors import IqlRosError
from iql_ros.files import write_text
from iql_ros.verbs.terminal import out_console, room


def inspect_command(
    log: Annotated[Path, typer.Argument(help="a bag file or a bag folder")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the facts there")] = None,
    propose: Annotated[
        Path | None, typer.Option(help="write a first, commented contract for this log there")
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option(help="with --propose: a topic to take for commands, repeatable"),
    ] = None,
    messages: Annotated[
        list[Path] | None,
        typer.Option(help="folder of .msg files, for types that the log does not embed"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace what is there")] = False,
) -> None:
    """Shows a log's topics, rates, gaps and clocks, and warns of what would spoil a dataset.

    Example: `iql-ros inspect logs/run1.mcap --propose robot.yaml`
    """
    inspector, proposer = room("training.inspection.inspect"), room("training.inspection.propose")
    for file in (json_file, propose):
        if file is not None and file.exists() and not force:
            raise IqlRosError(f"{file} exists: choose another name or pass --force")
    opened = room("training.logs").open_log(log)
    types = [topic.msgtype for topic in opened.topics.values()]
    definitions = read_definitions(messages or [], types)
    facts = inspector.inspect_log(opened, definitions)
    # A file or a pipe has no width of its own, and 80 columns would fold every name.
    out_console.print(_table(facts), width=None if out_console.is_terminal else 120)
    for text in (*facts.findings, *facts.warnings):
        out_console.print(f"- {text}")
    if json_file is not None:
        write_text(
            json_file,
            json.dumps(room("training.inspection.facts").facts_as_json(facts), indent=2) + "\n",
        )
    if propose is not None:
        folders = [os.path.relpath(folder, propose.parent) for folder in messages or []]
        text = proposer.propose(
            opened,
            facts,
            actions=action or [],
            definitions=definitions,
            message_folders=folders,
        )
        write_text(propose, text)
        out_console.print(
            f"contract in {propose}; next: write its reward, then "
            f"iql-ros convert {log} --contract {propose} --out data.h5"
        )


def _table(facts: Any) -> Table:
    """Two lines for each topic; times in seconds, that of the longest gap from the log's start."""
    title = f"{facts.path.name}: {facts.duration_s:.1f} s, {len(facts.topics)} topics"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("topic, type, definition", overflow="fold", min_width=30)
    for heading in ("count", "Hz", "jitter", "gap", "layouts"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("header clock", min_width=14)
    for topic in facts.topics:
        receive = topic.receive
        msgtype = topic.msgtype.replace("/msg/", "/")
        several = topic.count > 1
        table.add_row(
            f"{topic.name}\n  {msgtype}, {topic.encoding}, {topic.definition}",
            str(topic.count),
            f"{receive.rate_hz:.4g}" if several else "",
            f"{receive.jitter_s:.2g}" if several else "",
            f"{receive.gap_s:.3g}\nat {receive.gap_at_s:.1f}" if several else "",
            str(topic.layouts or ""),
            _clock(topic.header),
        )
    return table


def _clock(header: Any) -> str:
    """Health of a header clock in a few words."""
    if header is None:
        return ""
    words = []
    if header.zero and not (header.behind_s or header.duplicates):
        return f"{header.zero} zero"
    if header.is_sim:
        words.append("simulated time")
    else:
        side = "behind" if header.behind_s >= 0 else "ahead"
        words.append(f"{abs(header.behind_s):.3g} s {side}")
    if abs(header.drift_s_per_min) >= 0.001:
        words.append(f"drift {header.drift_s_per_min:+.2g} s/min")
    if header.grain_s:
        words.append("whole s" if header.grain_s == 1 else "whole ms")
    counts = {"zero": header.zero, "repeated": header.duplicates, "back": header.backward}
    words += [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join(words)
